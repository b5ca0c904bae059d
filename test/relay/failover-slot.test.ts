import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import { Scene } from '../support/crash-run.ts';
import { withClient } from '../support/database.ts';
import { assertDelivered, judge } from '../support/judge.ts';
import { modeChanges, printedIds, streamedTimes, terminated } from '../support/modes.ts';
import { openOutbox } from '../support/outbox.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { caughtUp, startPair } from '../support/standby.ts';
import { until } from '../support/until.ts';

const RATE = 300;

async function failOverAndDrain(
  pair: Awaited<ReturnType<typeof startPair>>,
  scene: Scene,
  relay: RelayProcess,
): Promise<void> {
  await pair.failOver();
  await streamedTimes(relay, 2);
  const from = await scene.target.count();
  await until(async () => (await scene.target.count()) > from + RATE, { what: 'events of the new primary' });
  await scene.shop.stop();
  await scene.drained();
  await terminated(relay);
}

test(
  'P1 P3 P5 the primary fails over to a standby without the slot: nothing lost that the new primary has, it goes on by itself',
  { timeout: 120_000 },
  async () => {
    const pair = await startPair({});
    const scene = await Scene.open('kafka', { serverUrl: pair.url, shop: { rate: RATE } });
    const relay = scene.startRelay();
    try {
      scene.shop.start();
      await streamedTimes(relay, 1);
      await until(async () => (await scene.target.count()) > RATE, { what: 'events to flow' });
      await failOverAndDrain(pair, scene, relay);
      assert.ok(
        modeChanges(relay).some(({ reason }) => reason === 'other-timeline'),
        relay.output,
      );
      const committed = await scene.shop.committed();
      const kept = new Set(committed.map(({ id }) => id));
      // The stream runs ahead of the standby: what it brought and the crash took is known to consumers alone.
      const received = (await scene.target.read()).filter(({ id }) => kept.has(id));
      assertDelivered(judge(committed, received), { maxDuplicates: RATE });
    } finally {
      await relay.destroy();
      await scene.close();
      await pair.remove();
    }
  },
);

test(
  'P1 P2 P3 P5 with SLOT_FAILOVER nothing is streamed that the standby lacks: after the failover everything delivered is there',
  { timeout: 120_000 },
  async () => {
    const pair = await startPair({
      primary: { synchronized_standby_slots: 'standby' },
      // The new primary has no standby of its own to wait for.
      standby: { sync_replication_slots: 'on', synchronized_standby_slots: '' },
    });
    const scene = await Scene.open('kafka', { serverUrl: pair.url, shop: { rate: RATE } });
    const relay = scene.startRelay({ env: { SLOT_FAILOVER: 'true' } });
    const { name } = scene.database;
    try {
      scene.shop.start();
      await streamedTimes(relay, 1);
      await until(async () => (await scene.target.count()) > RATE, { what: 'events to flow' });
      const synced = 'select from pg_replication_slots where slot_name = $1 and synced and not temporary';
      await withClient(pair.standby.url, async (client) => {
        const there = async (): Promise<boolean> => {
          // The slot has to move on first: by itself the primary gives it the chance every 15 s.
          await withClient(pair.url, async (primary) => await primary.query('checkpoint'));
          return (await client.query(synced, [name])).rowCount === 1;
        };
        await until(there, { what: 'the slot on the standby', intervalMs: 500, timeoutMs: 30_000 });
      });
      await caughtUp(pair);
      // From here on the standby hears nothing more: what is committed now is lost with the primary.
      pair.replication.blackHole();
      const waiting = await scene.waiting();
      await until(async () => (await scene.waiting()) > waiting + RATE, {
        what: 'events that only the primary has',
      });
      await failOverAndDrain(pair, scene, relay);
      assert.ok(
        scene.shop.answered > (await scene.shop.committed()).length + RATE / 2,
        'the failover took some back',
      );
      assertDelivered(await scene.verdict(), { maxDuplicates: RATE });
    } finally {
      pair.replication.heal();
      await relay.destroy();
      await scene.close();
      await pair.remove();
    }
  },
);

for (const source of ['polling', 'streaming']) {
  const what = source === 'polling' ? 'what is polled' : 'what was there before the slot';
  test(`P2 with SLOT_FAILOVER ${what} waits for the standby, too; a standby slot that does not exist is named`, async () => {
    await assertWaitsForStandby(source);
  });
}

async function assertWaitsForStandby(source: string): Promise<void> {
  const server = await startPostgres({ settings: { synchronized_standby_slots: 'standby' } });
  const outbox = await openOutbox(server.url);
  const id = await outbox.emit('thing', 'a', 1);
  const relay = RelayProcess.start({
    env: { ...outbox.env, BROKER: 'stdout', SOURCE: source, SLOT_FAILOVER: 'true' },
  });
  try {
    await relay.waitForLine(/mode: polling/);
    await relay.waitForLine(/delivery waits for the physical slot standby.*does not exist/);
    await outbox.sql(`select pg_create_physical_replication_slot('standby', true)`);
    const asked = `select count(*) from pg_stat_activity where query like '%bool_and%restart_lsn%' and datname = $1 and pid <> pg_backend_pid()`;
    await until(async () => (await outbox.sql(asked, [outbox.name]))[0]?.['count'] === '1', {
      what: 'the relay to ask for the standby',
    });
    assert.deepEqual(printedIds(relay), []);
    // As a standby does that has received so much.
    await outbox.sql(`select pg_replication_slot_advance('standby', pg_current_wal_lsn())`);
    await outbox.drained();
    await terminated(relay);
    assert.deepEqual(printedIds(relay), [id]);
  } finally {
    await relay.destroy();
    await outbox.drop();
    await server.remove();
  }
}
