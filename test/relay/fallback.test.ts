import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Client, type ClientConfig } from 'pg';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import { Scene } from '../support/crash-run.ts';
import { withClient } from '../support/database.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { assertDelivered } from '../support/judge.ts';
import {
  printedIds,
  terminated,
  modeChanges,
  roleWithoutReplication,
  slotsOf,
  streamedTimes,
  streamings,
} from '../support/modes.ts';
import { openOutbox, type Outbox } from '../support/outbox.ts';
import { type RelayProcess, withRelay } from '../support/relay-process.ts';
import { postgresService } from '../support/services.ts';
import { until } from '../support/until.ts';
import { dropSlot } from '../support/drop-slot.ts';

/** Events a second: on a small machine, the relay must be able to catch up while it changes its mode. */
const RATE = 300;
/** From the loss of the slot to deliveries from the table: five seconds, and what a busy machine needs beyond. */
const FALLBACK_MS = 7_000;

/** Waits until `events` more than now have arrived. */
async function arrived(scene: Scene, events: number, timeoutMs = 30_000): Promise<void> {
  const from = await scene.target.count();
  const what = `${events} more events to arrive`;
  await until(async () => (await scene.target.count()) >= from + events, { what, timeoutMs });
}

/** Whatever was committed until now has arrived, and 100 events that were committed after it. */
async function arrivedBeyondNow(scene: Scene, relay: RelayProcess, timeoutMs: number): Promise<void> {
  const committed = await withClient(scene.database.url, async (client) => {
    const { rows } = await client.query<{ count: string }>('select count(*) from journal');
    return Number(rows[0]?.count);
  });
  const what = 'events that were committed after the slot was dropped';
  await until(async () => (await scene.target.count()) >= committed + 100, { what, timeoutMs }).catch(
    (error: unknown) => {
      throw new Error(`${String(error)}\n${relay.output}`, { cause: error });
    },
  );
}

async function assertPolls(
  parts: { relay: RelayProcess; exhibits: ExhibitReader; outbox: Outbox },
  reason: string,
): Promise<string[]> {
  const { relay, exhibits, outbox } = parts;
  const ids = [await outbox.emit('thing', 'a', 1), await outbox.emit('thing', 'a', 2)];
  await relay.waitForLine(/mode: polling/);
  await outbox.drained();
  ids.push(await outbox.emit('thing', 'a', 3));
  await outbox.drained();
  assert.equal((await exhibits.text('/readyz')).status, 200);
  const status = await exhibits.status();
  assert.deepEqual([status['mode'], status['reason']], ['polling', reason]);
  const scrape = await exhibits.scrape();
  assert.equal(scrape.value('outbox_relay_mode', 'mode="polling"'), 1);
  assert.equal(scrape.value('outbox_relay_mode', 'mode="streaming"') ?? 0, 0);
  assert.deepEqual(modeChanges(relay), [{ mode: 'polling', reason }]);
  assert.deepEqual(await slotsOf(outbox.url), []);
  return ids;
}

describe('SOURCE=auto where streaming can not work', () => {
  test(
    'P1 P5 no WAL sender is free: it polls, says why, and streams once there is one',
    { timeout: 90_000 },
    async () => {
      const server = await startPostgres({ settings: { max_wal_senders: '1' } });
      const outbox = await openOutbox(server.url);
      const sender = new Client({ connectionString: outbox.url, replication: 'database' } as ClientConfig);
      const exhibits = await ExhibitReader.open();
      try {
        await sender.connect();
        await withRelay({ ...outbox.env, ...exhibits.env, BROKER: 'stdout' }, async (relay) => {
          const ids = await assertPolls({ relay, exhibits, outbox }, 'no-free-sender');
          assert.match(relay.output, /max_wal_senders/);
          await sender.end();
          await relay.waitForLine(/mode: streaming/, 45_000);
          ids.push(await outbox.emit('thing', 'a', 4));
          await outbox.drained();
          await terminated(relay);
          assert.deepEqual(printedIds(relay), ids);
        });
      } finally {
        await sender.end().catch(() => undefined);
        await outbox.drop();
        await server.remove();
      }
    },
  );

  test('P1 P3 P5 a role without REPLICATION: it polls, says why, and is ready', async () => {
    const outbox = await openOutbox();
    const role = await roleWithoutReplication(outbox.url);
    const exhibits = await ExhibitReader.open();
    try {
      await withRelay(
        { ...outbox.env, BROKER: 'stdout', ...exhibits.env, DATABASE_URL: role.url },
        async (relay) => {
          const ids = await assertPolls({ relay, exhibits, outbox }, 'replication-privilege');
          await terminated(relay);
          assert.deepEqual(printedIds(relay), ids);
        },
      );
    } finally {
      await outbox.drop();
      await role.drop((await postgresService()).url);
    }
  });

  test(
    'P1 P3 P4 P5 wal_level=replica: it polls; once the server is started with logical, it streams, each event once',
    { timeout: 90_000 },
    async () => {
      const server = await startPostgres({ settings: { wal_level: 'replica' } });
      const outbox = await openOutbox(server.url);
      const exhibits = await ExhibitReader.open();
      try {
        await withRelay({ ...outbox.env, BROKER: 'stdout', ...exhibits.env }, async (relay) => {
          const ids = await assertPolls({ relay, exhibits, outbox }, 'wal-level');
          await outbox.sql('alter system set wal_level = logical');
          await server.stop();
          await server.start();
          await streamedTimes(relay, 1);
          ids.push(await outbox.emit('thing', 'a', 4));
          await outbox.drained();
          assert.deepEqual(await slotsOf(outbox.url), [outbox.name]);
          await terminated(relay);
          assert.deepEqual(printedIds(relay), ids);
        });
      } finally {
        await outbox.drop();
        await server.remove();
      }
    },
  );
});

describe('SOURCE=auto while a slot is made', () => {
  test(
    'P1 P2 P3 P4 P5 first start while a transaction is open elsewhere: delivers meanwhile, then streams, each event once',
    { timeout: 120_000 },
    async () => {
      const scene = await Scene.open('kafka', { shop: { rate: RATE } });
      const { url, name } = scene.database;
      const exhibits = await ExhibitReader.open();
      scene.shop.start();
      await until(async () => (await scene.waiting()) > 300, { what: 'a backlog', timeoutMs: 30_000 });
      const writer = new Client({ connectionString: url });
      await writer.connect();
      // Its own event is passed by all that is written meanwhile, and becomes visible just before the slot is there.
      await writer.query(
        `begin; savepoint s;
         with e as (select outbox_emit('order', 'held', 'Placed', '1') as id)
         insert into journal (id, key, payload) select id, 'held', '1' from e`,
      );
      const relay = scene.startRelay({ env: exhibits.env });
      try {
        await relay.waitForLine(/mode: polling/);
        await until(async () => (await slotsOf(url)).length === 1, { what: 'the slot in the making' });
        // Four seconds of the shop's work.
        await arrived(scene, 4 * RATE);
        assert.equal((await exhibits.status())['mode'], 'polling', relay.output);
        assert.equal((await exhibits.text('/readyz')).status, 200);
        assert.equal(streamings(relay), 0, relay.output);
        await writer.query('commit');
        await streamedTimes(relay, 1);
        await arrived(scene, RATE);
        assert.equal((await exhibits.status())['mode'], 'streaming');
        assert.deepEqual(await slotsOf(url), [name]);
        await scene.shop.stop();
        await scene.drained();
        await terminated(relay);
        assert.equal(streamings(relay), 1, 'it went over once');
        assertDelivered(await scene.verdict(), { maxDuplicates: 0 });
      } finally {
        await relay.destroy();
        await writer.end();
        await scene.close();
      }
    },
  );

  test(
    'P1 P3 P4 P5 P6 the slot is dropped under load, again and again: delivers from the table within seconds, then streams, each event once',
    { timeout: 180_000 },
    async () => {
      const scene = await Scene.open('kafka', { shop: { rate: RATE } });
      const { url, name } = scene.database;
      const relay = scene.startRelay();
      try {
        scene.shop.start();
        await streamedTimes(relay, 1);
        await arrived(scene, RATE);
        for (const [index, held] of [true, false, true].entries()) {
          const before = streamings(relay);
          assert.equal(before, index + 1, relay.output);
          await withClient(url, async (client) => {
            // No slot can be made while it is open: what arrives then comes from the table.
            if (held) await client.query('begin; select pg_current_xact_id()');
            await dropSlot(url, name);
            await arrivedBeyondNow(scene, relay, FALLBACK_MS);
            if (!held) return;
            assert.equal(streamings(relay), before, relay.output);
            assert.equal(modeChanges(relay).at(-1)?.mode, 'polling', relay.output);
            await client.query('rollback');
          });
          await streamedTimes(relay, before + 1);
          await arrived(scene, RATE);
        }
        await scene.shop.stop();
        await scene.drained();
        await terminated(relay);
        assert.deepEqual(await slotsOf(url), [name]);
        assertDelivered(await scene.verdict(), { maxDuplicates: 0 });
      } finally {
        await relay.destroy();
        await scene.close();
      }
    },
  );
});

test(
  'P1 P3 P4 P5 P6 polling, then auto, then polling, then auto again, by restarts under load: each event once, no slot left without a reader',
  { timeout: 180_000 },
  async () => {
    const scene = await Scene.open('kafka', { shop: { rate: RATE } });
    const { url, name } = scene.database;
    let relay: RelayProcess | undefined;
    try {
      scene.shop.start();
      for (const source of ['polling', 'auto', 'polling', 'auto']) {
        relay = scene.startRelay({ env: { SOURCE: source } });
        if (source === 'auto') await streamedTimes(relay, 1);
        else await relay.waitForLine(/mode: polling/);
        await arrived(scene, RATE);
        const slots = source === 'auto' ? [name] : [];
        const same = async (): Promise<boolean> => (await slotsOf(url)).length === slots.length;
        await until(same, { what: `slots while it runs with ${source}: ${slots.join(', ')}` });
        await terminated(relay);
        assert.deepEqual(await slotsOf(url), slots, `after it ran with ${source}`);
        if (source === 'polling')
          assert.deepEqual(modeChanges(relay), [{ mode: 'polling', reason: 'configured' }]);
      }
      await scene.shop.stop();
      relay = scene.startRelay();
      await scene.drained();
      await terminated(relay);
      assertDelivered(await scene.verdict(), { maxDuplicates: 0 });
    } finally {
      await relay?.destroy();
      await scene.close();
    }
  },
);
