import { setTimeout as sleep } from 'node:timers/promises';
import { Kafka, logLevel } from 'kafkajs';
import type { Admin, EachBatchPayload, KafkaConfig as ClientConfig, SASLOptions } from 'kafkajs';
import type { KafkaConfig } from '../../config/config.ts';
import { tlsOptions } from '../../config/tls.ts';
import type { Consumer, ConsumerOptions } from './consumer.ts';

const PARTITIONS = 3;
const FINISH_TIMEOUT_MS = 30_000;
const JOIN_TIMEOUT_MS = 1_500;
const POLL_MS = 50;
/** A demo that is killed leaves its topic behind on a broker that it did not start; the records at least go. */
const RETENTION_MS = 3_600_000;

/** Makes the topic, joins a group of its own and reads from the beginning. */
export async function openKafkaConsumer(config: KafkaConfig, options: ConsumerOptions): Promise<Consumer> {
  const { channel: topic, onArrival, onFailure } = options;
  const kafka = new Kafka(clientConfig(config));
  const admin = kafka.admin();
  const consumer = kafka.consumer({ groupId: topic, maxWaitTimeInMs: 100 });
  const consumed = new Map<number, bigint>();
  const close = once(async () => {
    await consumer.disconnect().catch(() => undefined);
    await admin.deleteTopics({ topics: [topic] }).catch(() => undefined);
    await admin.deleteGroups([topic]).catch(() => undefined);
    await admin.disconnect().catch(() => undefined);
  });
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    if (!payload.restart) onFailure(payload.error);
  });
  const eachBatch = async ({ batch }: EachBatchPayload): Promise<void> => {
    for (const { headers } of batch.messages) onArrival(headers?.['id']?.toString() ?? '');
    consumed.set(batch.partition, BigInt(batch.lastOffset()) + 1n);
    await Promise.resolve();
  };
  try {
    await admin.connect();
    await makeTopic(admin, topic);
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
  } catch (error) {
    await close();
    throw error;
  }
  const joined = new Promise<void>((resolve) => {
    consumer.on(consumer.events.GROUP_JOIN, () => resolve());
  });
  consumer.run({ autoCommit: false, eachBatch }).catch(onFailure);
  // A broker that has just started is busy with its first group, and the first orders would have to wait. Nothing that
  // is published before is missed: a broker that takes seconds for a group, as many are set, isn't waited for.
  await Promise.race([joined, sleep(JOIN_TIMEOUT_MS, undefined, { ref: false })]);
  return {
    name: 'a Kafka consumer',
    finish: async () => await readToEnd(admin, topic, consumed),
    close,
  };
}

async function makeTopic(admin: Admin, topic: string): Promise<void> {
  const configEntries = [{ name: 'retention.ms', value: String(RETENTION_MS) }];
  // As many replicas as the broker has for its default.
  const definition = { topic, numPartitions: PARTITIONS, replicationFactor: -1, configEntries };
  // kafkajs's own wait fails when a broker has not heard of the topic yet.
  await admin.createTopics({ topics: [definition], waitForLeaders: false });
  await until(async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
    return topics.every(({ partitions }) => partitions.every(({ leader }) => leader >= 0));
  }, `the topic ${topic} has no leaders`);
}

async function readToEnd(admin: Admin, topic: string, consumed: ReadonlyMap<number, bigint>): Promise<void> {
  const ends = await admin.fetchTopicOffsets(topic);
  await until(
    () =>
      ends.every(
        ({ partition, low, high }) => low === high || (consumed.get(partition) ?? 0n) >= BigInt(high),
      ),
    `the consumer did not read ${topic} to its end`,
  );
}

/** An error of `check` counts as "not yet": a fresh topic is unknown to some broker for a moment. */
async function until(check: () => boolean | Promise<boolean>, otherwise: string): Promise<void> {
  const deadline = performance.now() + FINISH_TIMEOUT_MS;
  let last: unknown;
  while (performance.now() < deadline) {
    try {
      if (await check()) return;
    } catch (error) {
      last = error;
    }
    await sleep(POLL_MS);
  }
  throw new Error(`${otherwise} after ${FINISH_TIMEOUT_MS / 1000} s`, { cause: last });
}

function clientConfig(config: KafkaConfig): ClientConfig {
  return {
    clientId: 'outbox-relay-demo',
    brokers: [...config.brokers],
    logLevel: logLevel.NOTHING,
    // Given up within some seconds: an address that is wrong must not look like a slow start.
    retry: { retries: 3, initialRetryTime: 100 },
    ...(config.ssl && { ssl: tlsOptions(config.ssl) }),
    ...(config.sasl && { sasl: saslOptions(config.sasl) }),
  };
}

function saslOptions(sasl: NonNullable<KafkaConfig['sasl']>): SASLOptions {
  if (sasl.mechanism === 'oauthbearer') {
    const oauthBearerProvider = async (): Promise<{ value: string }> =>
      await Promise.resolve({ value: sasl.token() });
    return { mechanism: 'oauthbearer', oauthBearerProvider };
  }
  return { mechanism: sasl.mechanism, username: sasl.username, password: sasl.password() };
}

function once(action: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  return async () => await (running ??= action());
}
