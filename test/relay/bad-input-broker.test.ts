import assert from 'node:assert/strict';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import { startKafka } from '../../src/demo/services/kafka.ts';
import { readTopic } from '../support/consume-kafka.ts';
import { bindQueue } from '../support/consume-rabbitmq.ts';
import { ExhibitReader, type Scrape } from '../support/exhibits.ts';
import { uniqueName } from '../support/names.ts';
import { openOutbox, type Outbox } from '../support/outbox.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { kafkaService, rabbitmqService } from '../support/services.ts';
import { freshTopic } from '../support/topic.ts';
import { until } from '../support/until.ts';

let outbox: Outbox;
let releases: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  outbox = await openOutbox();
});
afterEach(async () => {
  for (const release of releases.toReversed()) await release();
  releases = [];
  await outbox.drop();
});
after(() => assert.equal(releases.length, 0));

interface Running {
  readonly relay: RelayProcess;
  readonly exhibits: ExhibitReader;
}

async function start(env: Readonly<Record<string, string>>): Promise<Running> {
  const exhibits = await ExhibitReader.open();
  const relay = RelayProcess.start({
    env: { ...outbox.env, ...exhibits.env, TOPIC_GRACE_MS: '1500', ...env },
  });
  releases.push(() => relay.destroy());
  await relay.waitForLine(/mode: streaming/);
  return { relay, exhibits };
}

/** Everything is settled, the metrics agree, and the drain is clean. */
async function finish({ relay, exhibits }: Running): Promise<Scrape> {
  await outbox.drained();
  const { length } = await outbox.deadLetters();
  // The database is asked once a second.
  const scrape = await until(
    async () => {
      const now = await exhibits.scrape();
      return now.value('outbox_relay_dead_letters') === length ? now : undefined;
    },
    { what: `${length} dead letters in the metrics` },
  );
  relay.kill('SIGTERM');
  assert.deepEqual(await relay.exit, { code: 0, signal: null }, relay.output);
  return scrape;
}

/** One dead letter, with everything that is needed to make the row again. */
async function assertParked(
  id: string,
  code: string,
  expected: Readonly<Record<string, string>>,
): Promise<void> {
  const letters = await outbox.deadLetters();
  assert.deepEqual(
    letters.map((letter) => [letter.eventId, letter.code]),
    [[id, code]],
  );
  const { row, reason, attempts } = letters[0] as (typeof letters)[number];
  assert.ok(reason.length > 10 && attempts >= 1, JSON.stringify(letters[0]));
  assert.deepEqual(Object.keys(row).toSorted(), [
    'aggregateid',
    'aggregatetype',
    'created_at',
    'delivered_at',
    'headers',
    'id',
    'payload',
    'seq',
    'type',
    'xid',
  ]);
  for (const [column, value] of Object.entries({ id, type: 'Happened', ...expected })) {
    assert.equal(row[column], value);
  }
}

async function topicOf(config: Readonly<Record<string, string>> = {}): Promise<string> {
  const { topic, drop } = await freshTopic({ partitions: 2, config });
  releases.push(drop);
  return topic;
}
async function idsIn(topic: string): Promise<(string | undefined)[]> {
  return (await readTopic(await kafkaService(), topic)).map(({ headers }) => headers['id']);
}
const kafkaEnv = async (): Promise<Record<string, string>> => ({
  BROKER: 'kafka',
  KAFKA_BROKERS: (await kafkaService()).brokers.join(','),
  ROUTE_TOPIC: '${aggregatetype}',
});

async function bound(pattern = '#'): Promise<{ exchange: string; ids: () => Promise<unknown[]> }> {
  const { url } = await rabbitmqService();
  const exchange = uniqueName('exchange');
  const queue = await bindQueue({ url, exchange, pattern });
  releases.push(() => queue.drop());
  return {
    exchange,
    ids: async () => (await queue.readAll()).map(({ properties }) => properties.messageId as unknown),
  };
}
const rabbitmqEnv = async (): Promise<Record<string, string>> => ({
  BROKER: 'rabbitmq',
  RABBITMQ_URL: (await rabbitmqService()).url,
  ROUTE_TOPIC: '${aggregatetype}',
});

describe('P10 what Kafka refuses is parked, the rest flows', () => {
  test('missing topic: retried for its grace, then parked; the other topic does not wait for it', async () => {
    const topic = await topicOf();
    const missing = uniqueName('missing');
    const running = await start(await kafkaEnv());
    const lost = await outbox.emit(missing, 'a', { n: 1 });
    const first = await outbox.emit(topic, 'a', { n: 2 });
    const scrape = await finish(running);
    await assertParked(lost, 'topic-missing', {
      aggregatetype: missing,
      aggregateid: 'a',
      payload: '{"n": 1}',
    });
    assert.deepEqual(await idsIn(topic), [first]);
    assert.equal(scrape.value('outbox_relay_events_published_total'), 1);
    assert.equal(scrape.value('outbox_relay_events_parked_total'), 1);
    assert.ok((scrape.value('outbox_relay_publish_failures_total') ?? 0) >= 2, 'it was tried again');
  });

  test('larger than max.message.bytes: parked at once, the others of its key flow on in order', async () => {
    const topic = await topicOf({ 'max.message.bytes': '20000' });
    const running = await start(await kafkaEnv());
    const before = await outbox.emit(topic, 'a', 'before');
    const large = await outbox.emit(topic, 'a', 'x'.repeat(100_000));
    const behind = await outbox.emit(topic, 'a', 'behind');
    const scrape = await finish(running);
    await assertParked(large, 'message-too-large', { aggregateid: 'a', payload: `"${'x'.repeat(100_000)}"` });
    assert.deepEqual(await idsIn(topic), [before, behind]);
    assert.equal(scrape.value('outbox_relay_events_published_total'), 2);
    assert.equal(scrape.value('outbox_relay_events_parked_total', 'code="message-too-large"'), 1);
  });

  test('credentials refused: exit code 78 and the variable to look at', { timeout: 90_000 }, async () => {
    const kafka = await startKafka({
      security: 'sasl_plaintext',
      users: [{ name: 'relay', password: 'right' }],
    });
    try {
      const sasl = {
        KAFKA_SASL_MECHANISM: 'plain',
        KAFKA_SASL_USERNAME: 'relay',
        KAFKA_SASL_PASSWORD: 'hush',
      };
      const relay = RelayProcess.start({
        env: { ...outbox.env, ...(await kafkaEnv()), KAFKA_BROKERS: kafka.brokers.join(','), ...sasl },
      });
      releases.push(() => relay.destroy());
      assert.deepEqual(await relay.exit, { code: 78, signal: null }, relay.output);
      assert.match(relay.stderr.at(-1) ?? '', /KAFKA_SASL/);
      assert.ok(!relay.output.includes('hush'));
    } finally {
      await kafka.remove();
    }
  });
});

describe('P10 what RabbitMQ refuses is parked, the rest flows', () => {
  test('unroutable: confirmed by the broker and yet never counted as delivered; parked', async () => {
    const { exchange, ids } = await bound('routed');
    const running = await start(await rabbitmqEnv());
    const stray = await outbox.emit(exchange, 'stray', { n: 1 });
    const routed = await outbox.emit(exchange, 'routed', { n: 2 });
    const scrape = await finish(running);
    await assertParked(stray, 'unroutable', { aggregateid: 'stray', payload: '{"n": 1}' });
    assert.deepEqual(await ids(), [routed]);
    assert.equal(scrape.value('outbox_relay_events_published_total'), 1);
    assert.equal(scrape.value('outbox_relay_events_parked_total', 'code="unroutable"'), 1);
    assert.ok((scrape.value('outbox_relay_publish_failures_total', 'code="unroutable"') ?? 0) >= 2);
  });

  test('exchange missing and not to be declared: parked after its grace, the other exchange flows', async () => {
    const { exchange, ids } = await bound();
    const missing = uniqueName('missing');
    const running = await start({ ...(await rabbitmqEnv()), RABBITMQ_DECLARE: 'false' });
    const lost = await outbox.emit(missing, 'a', { n: 1 });
    const first = await outbox.emit(exchange, 'a', { n: 2 });
    const scrape = await finish(running);
    await assertParked(lost, 'exchange-missing', { aggregatetype: missing, payload: '{"n": 1}' });
    assert.deepEqual(await ids(), [first]);
    assert.equal(scrape.value('outbox_relay_events_published_total'), 1);
  });

  test('credentials refused: exit code 78 and the variable to look at', async () => {
    const url = new URL((await rabbitmqService()).url);
    url.password = 'hush';
    const relay = RelayProcess.start({
      env: { ...outbox.env, ...(await rabbitmqEnv()), RABBITMQ_URL: url.href },
    });
    releases.push(() => relay.destroy());
    assert.deepEqual(await relay.exit, { code: 78, signal: null }, relay.output);
    assert.match(relay.stderr.at(-1) ?? '', /RABBITMQ_/);
    assert.ok(!relay.output.includes('hush'));
  });
});
