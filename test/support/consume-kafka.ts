import type { EachBatchPayload, KafkaConfig } from 'kafkajs';
import { uniqueName } from './names.ts';
import { kafkaClient, topicOffsets, withAdmin } from './topic.ts';

export interface KafkaRecord {
  readonly partition: number;
  readonly offset: bigint;
  readonly key: string | null;
  readonly value: Buffer | null;
  /** A header that comes several times keeps its last value. */
  readonly headers: Readonly<Record<string, string>>;
  readonly timestampMs: number;
}

/** How many records the topic holds: cheap, to wait for. */
export async function countRecords(config: KafkaConfig, topic: string): Promise<number> {
  const offsets = await withAdmin(config, async (admin) => await topicOffsets(admin, topic));
  return offsets.reduce((sum, { low, high }) => sum + Number(high) - Number(low), 0);
}

/**
 * Every record that the topic holds at the time of the call, from the beginning, in the order of each partition.
 * Independent of the relay: another client, another group.
 */
export async function readTopic(
  config: KafkaConfig,
  topic: string,
  timeoutMs = 60_000,
): Promise<KafkaRecord[]> {
  const records: KafkaRecord[] = [];
  await scanTopic(config, topic, { timeoutMs, visit: (record) => void records.push(record) });
  return records;
}

/** As `readTopic`, without keeping the records. */
export async function scanTopic(
  config: KafkaConfig,
  topic: string,
  { timeoutMs, visit }: { timeoutMs: number; visit: (record: KafkaRecord) => void },
): Promise<void> {
  const offsets = await withAdmin(config, async (admin) => await topicOffsets(admin, topic));
  const ends = new Map(
    offsets.filter(({ low, high }) => low !== high).map(({ partition, high }) => [partition, BigInt(high)]),
  );
  if (ends.size === 0) return;
  // Nothing to remove afterwards: it commits no offsets, and the broker forgets an empty group without any.
  await consume(config, { topic, groupId: uniqueName('reader'), ends, timeoutMs, visit });
}

interface Reading {
  readonly topic: string;
  readonly groupId: string;
  /** Partition → offset behind its last record; a partition that was read to there is removed. */
  readonly ends: Map<number, bigint>;
  readonly timeoutMs: number;
  readonly visit: (record: KafkaRecord) => void;
}

async function consume(config: KafkaConfig, reading: Reading): Promise<void> {
  const { topic, groupId, ends, timeoutMs, visit } = reading;
  const consumer = kafkaClient(config).consumer({ groupId, maxWaitTimeInMs: 100 });
  const complete = Promise.withResolvers<undefined>();
  const missing = (): string => [...ends].map(([partition, end]) => `${partition} to ${end}`).join(', ');
  const timer = setTimeout(
    () =>
      complete.reject(new Error(`${topic} was not read within ${timeoutMs} ms; partitions: ${missing()}`)),
    timeoutMs,
  );
  const eachBatch = async ({ batch }: EachBatchPayload): Promise<void> => {
    const end = ends.get(batch.partition) ?? 0n;
    for (const message of batch.messages) {
      if (BigInt(message.offset) < end) visit(toRecord(batch.partition, message));
    }
    if (BigInt(batch.lastOffset()) >= end - 1n) ends.delete(batch.partition);
    if (ends.size === 0) complete.resolve(undefined);
    await Promise.resolve();
  };
  try {
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await consumer.run({ autoCommit: false, eachBatch });
    await complete.promise;
  } finally {
    clearTimeout(timer);
    await consumer.disconnect();
  }
}

function toRecord(partition: number, message: EachBatchPayload['batch']['messages'][number]): KafkaRecord {
  const headers = Object.entries(message.headers ?? {}).map(([name, value]) => {
    const last = Array.isArray(value) ? value.at(-1) : value;
    return [name, last?.toString() ?? ''] as const;
  });
  return {
    partition,
    offset: BigInt(message.offset),
    key: message.key?.toString() ?? null,
    value: message.value,
    headers: Object.fromEntries(headers),
    timestampMs: Number(message.timestamp),
  };
}
