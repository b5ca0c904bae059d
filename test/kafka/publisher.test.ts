import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KafkaConfig } from '../../src/config/config.ts';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import { createKafkaPublisher } from '../../src/pipeline/publish/kafka/kafka-publisher.ts';
import type { Outcome } from '../../src/pipeline/publish/publisher.ts';
import { countRecords, readTopic } from '../support/consume-kafka.ts';
import { Driver, makeMessage } from '../support/publisher-driver.ts';
import { kafkaService } from '../support/services.ts';
import { freshTopic, kafkaClient } from '../support/topic.ts';
import { until } from '../support/until.ts';
import { CLIENTS, kafkaConfig } from './kafka-config.ts';

type Options = Partial<KafkaConfig> & { readonly topicConfig?: Readonly<Record<string, string>> };
type Run = (driver: Driver, topic: string, brokers: string[]) => Promise<void>;

async function withTopic(options: Options, run: Run): Promise<void> {
  const { topicConfig = {}, ...changes } = options;
  const { brokers } = await kafkaService();
  const { topic, drop } = await freshTopic({ client: { brokers }, partitions: 4, config: topicConfig });
  const driver = new Driver((events) => createKafkaPublisher(kafkaConfig(brokers, changes), events));
  try {
    await driver.publisher.connect(AbortSignal.timeout(20_000));
    await run(driver, topic, brokers);
    assert.deepEqual(driver.breaches, []);
  } finally {
    driver.stop();
    await driver.publisher.close(2000);
    await drop();
  }
}

async function outcomesOf(driver: Driver, messages: readonly Message[]): Promise<(Outcome | undefined)[]> {
  driver.send(messages);
  await until(() => driver.allFinal(messages), { timeoutMs: 30_000, what: 'an outcome for all' });
  return driver.outcomes(messages);
}

function series(destination: string, count: number, key: (n: number) => string | null): Message[] {
  return Array.from({ length: count }, (_, n) =>
    makeMessage({ destination, id: String(n), key: key(n), body: Buffer.from(`{"n":${n}}`) }),
  );
}

for (const client of CLIENTS) {
  test(`P2 gzip delivers the same bytes (${client})`, async () => {
    await withTopic({ client, compression: 'gzip' }, async (driver, topic, brokers) => {
      const messages = series(topic, 500, (n) => `k${n % 9}`);
      const outcomes = await outcomesOf(driver, messages);
      assert.ok(outcomes.every((outcome) => outcome?.kind === 'durable'));
      const bodies = new Map(
        (await readTopic({ brokers }, topic)).map(({ headers, value }) => [headers['id'], value]),
      );
      for (const { id, body } of messages) assert.deepEqual(bodies.get(id), body);
    });
  });
}

test('P3 a key has the partition that the default partitioner of kafkajs (and of Java) gives it', async () => {
  await withTopic({}, async (driver, topic, brokers) => {
    const messages = series(topic, 60, (n) => `ключ-${n}`);
    await outcomesOf(driver, messages);
    const ours = new Map((await readTopic({ brokers }, topic)).map(({ key, partition }) => [key, partition]));
    const producer = kafkaClient({ brokers }).producer();
    await producer.connect();
    await producer.send({ topic, messages: messages.map(({ key, id: value }) => ({ key, value })) });
    await producer.disconnect();
    const all = await readTopic({ brokers }, topic);
    assert.equal(all.length, 120);
    for (const { key, partition } of all) assert.equal(partition, ours.get(key), String(key));
  });
});

test('without a key, records are spread over the partitions', async () => {
  await withTopic({}, async (driver, topic, brokers) => {
    await outcomesOf(
      driver,
      series(topic, 100, () => null),
    );
    const records = await readTopic({ brokers }, topic);
    assert.equal(new Set(records.map(({ partition }) => partition)).size, 4);
    assert.ok(records.every(({ key }) => key === null));
  });
});

for (const client of CLIENTS) {
  test(`P10 P3 a poison message inside a batch is found; all others are durable, in order (${client})`, async () => {
    await withTopic(
      { client, topicConfig: { 'max.message.bytes': '30000' } },
      async (driver, topic, brokers) => {
        const messages = series(topic, 300, () => 'one-key');
        const poison = makeMessage({
          destination: topic,
          id: 'poison',
          key: 'one-key',
          body: Buffer.alloc(40_000),
        });
        const outcomes = await outcomesOf(driver, [
          ...messages.slice(0, 150),
          poison,
          ...messages.slice(150),
        ]);
        const [outcome] = driver.outcomes([poison]);
        assert.ok(outcome?.kind === 'rejected' && outcome.permanent && outcome.code === 'message-too-large');
        assert.match(outcome.reason, /max\.message\.bytes/);
        assert.equal(outcomes.filter((one) => one?.kind === 'durable').length, 300);
        const ids = (await readTopic({ brokers }, topic)).map(({ headers }) => headers['id']);
        assert.deepEqual(
          ids,
          messages.map(({ id }) => id),
        );
      },
    );
  });
}

test('P10 a time that the topic refuses, an illegal topic, a compacted topic without a key: refused for good', async () => {
  const topicConfig = { 'cleanup.policy': 'compact', 'message.timestamp.after.max.ms': '60000' };
  await withTopic({ topicConfig }, async (driver, topic, brokers) => {
    const good = makeMessage({ destination: topic, id: 'good', key: 'a' });
    const bad = [
      makeMessage({ destination: topic, id: 'future', key: 'b', timestampMs: Date.now() + 7_200_000 }),
      makeMessage({ destination: 'no topic/at all', id: 'illegal', key: 'c' }),
      makeMessage({ destination: topic, id: 'no key', key: null }),
    ];
    const [first, ...others] = await outcomesOf(driver, [good, ...bad]);
    assert.deepEqual(first, { kind: 'durable' });
    const codes = others.map((outcome) =>
      outcome?.kind === 'rejected' && outcome.permanent ? outcome.code : '',
    );
    assert.deepEqual(codes, ['timestamp-refused', 'topic-invalid', 'record-refused']);
    assert.equal(await countRecords({ brokers }, topic), 1);
  });
});

for (const client of CLIENTS) {
  test(`P10 a message beyond what any broker reads is refused without being sent (${client})`, async () => {
    await withTopic({ client }, async (driver, topic) => {
      const huge = makeMessage({ destination: topic, id: 'huge', key: 'a', body: Buffer.alloc(105_000_000) });
      const small = makeMessage({ destination: topic, id: 'small', key: 'b' });
      const [outcome, neighbour] = await outcomesOf(driver, [huge, small]);
      assert.ok(outcome?.kind === 'rejected' && outcome.permanent);
      assert.match(outcome.reason, /105000\d+ bytes/);
      assert.equal(neighbour?.kind, 'durable');
      assert.deepEqual(driver.connections, [true]);
    });
  });
}

test('P10 a message that can not be encoded is refused, its neighbours are durable', async () => {
  await withTopic({}, async (driver, topic) => {
    const good = series(topic, 20, (n) => `k${n}`);
    const contentType = { length: 3 } as string;
    const broken = makeMessage({ destination: topic, id: 'broken', key: 'x', contentType });
    const outcomes = await outcomesOf(driver, [...good, broken]);
    assert.deepEqual(
      outcomes.map((outcome) => outcome?.kind),
      [...good.map(() => 'durable'), 'rejected'],
    );
  });
});
