import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { startKafka, type KafkaServer } from '../../src/demo/services/kafka.ts';
import { createKafkaPublisher } from '../../src/pipeline/publish/kafka/kafka-publisher.ts';
import { readTopic } from '../support/consume-kafka.ts';
import { Proxy } from '../support/proxy.ts';
import { publisherContract, type Received, type Subject } from '../support/publisher-contract.ts';
import { Driver, makeMessage } from '../support/publisher-driver.ts';
import { freshTopic } from '../support/topic.ts';
import { until } from '../support/until.ts';
import { CLIENTS, kafkaConfig, type KafkaClient } from './kafka-config.ts';

const REQUEST_TIMEOUT_MS = 2000;

/** A broker of our own: it has to tell its clients to come by way of the proxy, and is killed. */
interface Stage {
  readonly kafka: KafkaServer;
  readonly proxy: Proxy;
}

let stage: Promise<Stage> | undefined;

async function start(): Promise<Stage> {
  const proxy = await Proxy.start();
  const kafka = await startKafka({ advertised: [proxy.address] });
  proxy.forwardTo(kafka.brokers[0] as string);
  return { kafka, proxy };
}

after(async () => {
  const made = await stage;
  await made?.proxy.close();
  await made?.kafka.remove();
});

async function subject(client: KafkaClient): Promise<Subject> {
  stage ??= start();
  const { kafka, proxy } = await stage;
  const direct = { brokers: kafka.plaintextBrokers };
  const topic = await freshTopic({ client: direct, partitions: 3 });
  return {
    destination: topic.topic,
    create: (events) => {
      const config = kafkaConfig([proxy.address], { client, requestTimeoutMs: REQUEST_TIMEOUT_MS });
      const publisher = createKafkaPublisher(config, events);
      publisher.lead?.(topic.topic);
      return publisher;
    },
    received: async () => (await readTopic(direct, topic.topic)).map(toReceived),
    network: {
      cut: () => proxy.cut(),
      blackHole: () => proxy.blackHole(),
      heal: () => proxy.heal(),
      connections: () => proxy.connections,
    },
    broker: { kill: async () => await kafka.stop('SIGKILL'), start: async () => await kafka.start() },
    remove: async () => await topic.drop(),
  };
}

function toReceived(record: Awaited<ReturnType<typeof readTopic>>[number]): Received {
  const { id = '', eventType = '', contentType = '', ...headers } = record.headers;
  const { key, value: body, timestampMs } = record;
  return { id, type: eventType, contentType, headers, key, body, timestampMs };
}

for (const client of CLIENTS) {
  publisherContract(`kafka by ${client}`, {
    subject: async () => await subject(client),
    missingDestination: 'there-is-no-such-topic',
    tooLargeBytes: 1_500_000,
    largeBytes: 880_000,
    hasNetwork: true,
    // Ten seconds each; cluster.test.ts kills brokers under both.
    canKill: client === 'kafkajs',
    keepsNull: true,
    answerDeadlineMs: REQUEST_TIMEOUT_MS + 2000,
  });

  test(`kafka by ${client}: a connection lost while idle, as brokers end them, comes back without a word`, async () => {
    const one = await subject(client);
    const driver = new Driver((events) => one.create(events));
    try {
      await driver.publisher.connect(AbortSignal.timeout(20_000));
      const messages = ['before', 'after'].map((id) => makeMessage({ destination: one.destination, id }));
      for (const message of messages) {
        driver.send([message]);
        await until(() => driver.final.has(message), { what: 'an outcome' });
        one.network?.cut();
        await until(() => driver.publisher.room() === 0, { intervalMs: 0, what: 'the loss noticed' });
        await until(() => driver.publisher.room() > 0, { what: 'a new connection' });
      }
      assert.deepEqual(driver.connections, [true]);
      assert.deepEqual(driver.unknowns, []);
    } finally {
      driver.stop();
      await driver.publisher.close(1000);
      await one.remove();
    }
  });
}
