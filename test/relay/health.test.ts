import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Scene } from '../support/crash-run.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { openOutbox } from '../support/outbox.ts';
import { Proxy } from '../support/proxy.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { rabbitmqService } from '../support/services.ts';
import { until } from '../support/until.ts';

/** The contract with dashboards and alerts. */
const NAMES = [
  'lag_seconds',
  'lag_bytes',
  'pending_events',
  'in_flight_events',
  'in_flight_bytes',
  'events_published_total',
  'publish_failures_total',
  'events_parked_total',
  'dead_letters',
  'orphans_total',
  'duplicates_skipped_total',
  'publish_duration_seconds_bucket',
  'publish_duration_seconds_sum',
  'publish_duration_seconds_count',
  'delivery_duration_seconds_bucket',
  'delivery_duration_seconds_sum',
  'delivery_duration_seconds_count',
  'mode',
  'leader',
  'mode_changes_total',
  'slot_retained_bytes',
  'slot_wal_status',
  'last_durable_timestamp_seconds',
  'build_info',
].map((name) => `outbox_relay_${name}`);

test('P9 every promised metric is there, and says what happened', async () => {
  const outbox = await openOutbox();
  const exhibits = await ExhibitReader.open();
  const { url } = await rabbitmqService();
  const broker = await Proxy.start(url);
  const env = {
    ...outbox.env,
    ...exhibits.env,
    BROKER: 'rabbitmq',
    RABBITMQ_URL: broker.url(url),
    ROUTE_TOPIC: 'amq.fanout',
    RABBITMQ_EXCHANGE_TYPE: 'fanout',
    // Nothing is bound there: each event is unroutable.
    MAX_ATTEMPTS: '1',
    TOPIC_GRACE_MS: '1',
  };
  const relay = RelayProcess.start({ env });
  try {
    await relay.waitForLine(/mode: streaming/);
    assert.equal(await exhibits.lag(), 0);
    const sql = `select outbox_emit('thing', 'a', 'Happened', '1') from generate_series(1, 3)`;
    await outbox.sql(sql);
    await outbox.drained();
    const scrape = await until(
      async () => {
        const now = await exhibits.scrape();
        return now.value('outbox_relay_dead_letters') === 3 && now.value('outbox_relay_pending_events') === 0
          ? now
          : undefined;
      },
      { what: 'three dead letters' },
    );
    const valueOf = (name: string, label?: string): number | undefined =>
      scrape.value(`outbox_relay_${name}`, label);
    assert.equal(valueOf('events_published_total') ?? 0, 0);
    assert.equal(valueOf('events_parked_total', 'code="unroutable"'), 3);
    assert.equal(valueOf('lag_seconds'), 0);
    assert.equal(valueOf('in_flight_events'), 0);
    assert.equal(valueOf('in_flight_bytes'), 0);
    assert.equal(valueOf('leader'), 1);
    assert.equal(valueOf('mode', 'mode="streaming"'), 1);
    assert.equal(valueOf('slot_wal_status', 'status="reserved"'), 1);
    assert.ok((valueOf('slot_retained_bytes') ?? -1) >= 0);
    // A counter with labels has no sample before its first event.
    const missing = NAMES.filter((name) => !scrape.names.has(name) && !name.includes('published_total'));
    assert.deepEqual(missing, []);
    for (const name of NAMES)
      assert.ok(
        (await exhibits.text('/metrics')).body.includes(
          `# TYPE ${name.replace(/_(bucket|sum|count)$/u, '')} `,
        ),
        name,
      );
  } finally {
    await relay.destroy();
    await broker.close();
    await outbox.drop();
  }
});

test('P9 health through an outage of the broker and of the database: live and ready, the status tells the truth', async () => {
  const { url } = await rabbitmqService();
  const broker = await Proxy.start(url);
  const scene = await Scene.open('rabbitmq', { brokerAddress: broker.url(url), shop: { rate: 200 } });
  const database = await Proxy.start(scene.database.url);
  const exhibits = await ExhibitReader.open();
  const env = { DATABASE_URL: database.url(scene.database.url), ...exhibits.env };
  const relay = scene.startRelay({ env });
  const healthy = async (): Promise<void> => {
    const [live, ready] = await Promise.all([exhibits.text('/livez'), exhibits.text('/readyz')]);
    assert.deepEqual([live.status, ready.status], [200, 200]);
  };
  try {
    await relay.waitForLine(/mode: streaming/);
    scene.shop.start();
    const status = async (name: string): Promise<unknown> => (await exhibits.status())[name];
    await until(async () => (await status('brokerConnected')) === true, { what: 'the broker' });
    await healthy();

    broker.blackHole();
    broker.cut();
    await until(async () => (await status('brokerConnected')) === false, { what: 'the broker to be missed' });
    await until(async () => (await exhibits.lag()) > 1.5, { what: 'the lag to grow' });
    assert.ok(Number(await status('pendingEvents')) > 0);
    await healthy();
    broker.heal();
    broker.cut();
    await until(async () => (await exhibits.lag()) < 1, { what: 'the backlog to go', timeoutMs: 30_000 });

    await scene.shop.stop();
    await scene.drained();
    await until(async () => (await exhibits.lag()) === 0, { what: 'a lag of 0' });
    database.blackHole();
    // Nobody knows what is committed now: after three seconds of silence that is lag.
    await until(async () => (await exhibits.lag()) > 4, { what: 'the silence to count', timeoutMs: 15_000 });
    const [earlier, earlierMs] = [await exhibits.lag(), performance.now()];
    await until(async () => (await exhibits.lag()) > earlier + 1, {
      what: 'the lag to grow',
      timeoutMs: 5_000,
    });
    assert.ok(performance.now() - earlierMs > 800, 'not faster than time');
    await healthy();
    database.heal();
    database.cut();
    await until(async () => (await exhibits.lag()) === 0, { what: 'a lag of 0 again', timeoutMs: 30_000 });
    await healthy();
    relay.kill('SIGTERM');
    assert.deepEqual(await relay.exit, { code: 0, signal: null }, relay.output);
  } finally {
    await relay.destroy();
    await database.close();
    await broker.close();
    await scene.close();
  }
});

test('P9 before anything works: live, not ready, the lag counts from the first question', async () => {
  const silent = await Proxy.start('127.0.0.1:9');
  silent.blackHole();
  const exhibits = await ExhibitReader.open();
  const env = {
    ...exhibits.env,
    DATABASE_URL: `postgresql://nobody@${silent.address}/none`,
    BROKER: 'stdout',
  };
  const relay = RelayProcess.start({ env });
  try {
    await until(async () => (await exhibits.text('/livez')).status === 200, { what: 'the server' });
    assert.equal((await exhibits.text('/readyz')).status, 503);
    assert.equal((await exhibits.status())['mode'], 'starting');
    await until(async () => (await exhibits.lag()) > 3, { what: 'the lag to grow' });
  } finally {
    await relay.destroy();
    await silent.close();
  }
});
