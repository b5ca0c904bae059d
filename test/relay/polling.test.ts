import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import { Scene } from '../support/crash-run.ts';
import { withClient } from '../support/database.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { assertDelivered } from '../support/judge.ts';
import {
  printedIds,
  terminated,
  modeChanges,
  roleWithoutReplication,
  settled,
  slotsOf,
} from '../support/modes.ts';
import { emitInMemory, openOutbox } from '../support/outbox.ts';
import { Proxy } from '../support/proxy.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { rabbitmqService } from '../support/services.ts';
import { until } from '../support/until.ts';

const POLLING = { SOURCE: 'polling' };
/** Small, so that the bound of duplicates is one that a broken relay would exceed. */
const MAX_IN_FLIGHT_EVENTS = 500;
const KILLS = 3;
const TERMINATIONS = 3;
/** How long a transaction holds back a number that others have passed. */
const LATE_MS = 2_000;
/** What a poll of an idle table may wait for, with time to spare. */
const PUBLISHED_WITHIN_MS = 3_000;

async function countMoved(scene: Scene, events: number): Promise<void> {
  const from = await scene.target.count();
  const what = `${events} more events to arrive`;
  await until(async () => (await scene.target.count()) >= from + events, { what, timeoutMs: 30_000 });
}

describe('SOURCE=polling', () => {
  for (const cleanup of ['delete', 'mark'] as const) {
    test(
      `P1 P2 P3 P5 a backlog and writers that roll back, CLEANUP=${cleanup}: each event once, in order, without slot or publication`,
      { timeout: 120_000 },
      async () => {
        const scene = await Scene.open('kafka', { shop: { rate: 500, rollback: 0.3 } });
        const { url } = scene.database;
        await withClient(url, async (client) => await client.query('drop publication outbox_relay'));
        scene.shop.start();
        await until(async () => (await scene.waiting()) > 1_000, { what: 'a backlog', timeoutMs: 30_000 });
        const relay = scene.startRelay({ env: { ...POLLING, CLEANUP: cleanup } });
        try {
          await relay.waitForLine(/mode: polling/);
          await countMoved(scene, 2_000);
          assert.deepEqual(await slotsOf(url), [], 'while it polls');
          await scene.shop.stop();
          await settled(url);
          await terminated(relay);
          const verdict = await scene.verdict();
          assertDelivered(verdict, { maxDuplicates: 0 });
          assert.equal(await scene.waiting(), cleanup === 'delete' ? 0 : verdict.committed);
          assert.deepEqual(modeChanges(relay), [{ mode: 'polling', reason: 'configured' }]);
          assert.deepEqual(await slotsOf(url), []);
          await withClient(url, async (client) => {
            const { rows } = await client.query('select pubname from pg_publication');
            assert.deepEqual(rows, []);
          });
        } finally {
          await relay.destroy();
          await scene.close();
        }
      },
    );

    test(
      `P1 P3 a transaction that drew its number early and commits late is not passed over, CLEANUP=${cleanup}`,
      { timeout: 60_000 },
      async () => {
        const outbox = await openOutbox();
        const env = { ...outbox.env, ...POLLING, BROKER: 'stdout', CLEANUP: cleanup };
        const relay = RelayProcess.start({ env });
        try {
          await relay.waitForLine(/mode: polling/);
          const early: string[] = [];
          const late = await withClient(outbox.url, async (writer) => {
            await writer.query('begin; savepoint s');
            const { rows } = await writer.query<{ id: string; seq: string }>(
              `with e as (select outbox_emit('thing', 'late', 'Happened', '1') as id)
               select id::text, (select last_value from outbox_seq)::text as seq from e`,
            );
            const drawnMs = performance.now();
            // Others pass it all the time, so that whatever remembers how far it has read has gone beyond it.
            do {
              early.push(await outbox.emit('thing', 'early', early.length));
              await relay.waitForLine(new RegExp(early.at(-1) ?? ''));
              await settled(outbox.url);
            } while (performance.now() - drawnMs < LATE_MS);
            const [last] = await outbox.sql('select last_value::text as seq from outbox_seq');
            assert.ok(Number(last?.['seq']) > Number(rows[0]?.seq), 'others have later numbers');
            await writer.query('commit');
            return rows[0]?.id ?? '';
          });
          await relay.waitForLine(new RegExp(late), 5_000);
          await settled(outbox.url);
          await terminated(relay);
          assert.deepEqual(printedIds(relay), [...early, late]);
        } finally {
          await relay.destroy();
          await outbox.drop();
        }
      },
    );
  }

  test(
    'P1 P2 P3 P4 SIGKILL while the broker does not answer: what was with it is sent again, duplicates bounded',
    { timeout: 120_000 },
    async (t) => {
      const { url } = await rabbitmqService();
      const broker = await Proxy.start(url);
      const scene = await Scene.open('rabbitmq', { brokerAddress: broker.url(url), shop: { rate: 400 } });
      const exhibits = await ExhibitReader.open();
      const env = { ...POLLING, ...exhibits.env, MAX_IN_FLIGHT_EVENTS: String(MAX_IN_FLIGHT_EVENTS) };
      let relay: RelayProcess | undefined;
      try {
        scene.shop.start();
        for (let round = 0; round < KILLS; round++) {
          relay = scene.startRelay({ env });
          await relay.waitForLine(/mode: polling/);
          await countMoved(scene, 200);
          broker.blackHole();
          const inFlight = async (): Promise<number> =>
            (await exhibits.scrape()).value('outbox_relay_in_flight_events') ?? 0;
          await until(async () => (await inFlight()) > 100, { what: 'events in flight' });
          relay.kill('SIGKILL');
          await relay.exit;
          broker.heal();
          broker.cut();
        }
        await scene.shop.stop();
        relay = scene.startRelay({ env });
        await scene.drained();
        await terminated(relay);
        const verdict = await scene.verdict();
        assertDelivered(verdict, { maxDuplicates: KILLS * MAX_IN_FLIGHT_EVENTS });
        assert.deepEqual(await slotsOf(scene.database.url), []);
        t.diagnostic(`${verdict.committed} committed, ${verdict.duplicates} duplicates after ${KILLS} kills`);
      } finally {
        await relay?.destroy();
        await broker.close();
        await scene.close();
      }
    },
  );

  test('P1 P3 P4 SIGTERM under load: exit 0, no duplicate', { timeout: 120_000 }, async () => {
    const scene = await Scene.open('kafka');
    let relay: RelayProcess | undefined;
    try {
      scene.shop.start();
      for (let round = 0; round < TERMINATIONS; round++) {
        relay = scene.startRelay({ env: POLLING });
        await relay.waitForLine(/mode: polling/);
        await countMoved(scene, 300);
        await terminated(relay);
      }
      await scene.shop.stop();
      relay = scene.startRelay({ env: POLLING });
      await scene.drained();
      await terminated(relay);
      assertDelivered(await scene.verdict(), { maxDuplicates: 0 });
    } finally {
      await relay?.destroy();
      await scene.close();
    }
  });

  test('P10 CLEANUP=none is refused at once: nothing would tell what is delivered', async () => {
    const outbox = await openOutbox();
    await outbox.emit('thing', 'a', 1);
    const relay = RelayProcess.start({
      env: { ...outbox.env, ...POLLING, BROKER: 'stdout', CLEANUP: 'none' },
    });
    const timer = setTimeout(() => relay.kill('SIGKILL'), 20_000);
    try {
      assert.deepEqual(await relay.exit, { code: 78, signal: null }, relay.output);
      assert.ok(
        relay.stderr.some((line) => line.includes('CLEANUP') && line.includes('SOURCE')),
        relay.output,
      );
      assert.deepEqual(relay.stdout, [], 'nothing was delivered');
    } finally {
      clearTimeout(timer);
      await relay.destroy();
      await outbox.drop();
    }
  });
});

describe('SOURCE=polling on a server with wal_level=replica', () => {
  /** Nothing but a synchronous commit writes the log to the disk within a test. */
  let server: PostgresServer;

  before(async () => {
    server = await startPostgres({ settings: { wal_level: 'replica', wal_writer_delay: '10s' } });
  });
  after(async () => await server.remove());

  test('P1 P3 a role without REPLICATION delivers, and is ready', { timeout: 60_000 }, async () => {
    const outbox = await openOutbox(server.url);
    const role = await roleWithoutReplication(outbox.url);
    const exhibits = await ExhibitReader.open();
    const env = { ...outbox.env, ...POLLING, ...exhibits.env, BROKER: 'stdout', DATABASE_URL: role.url };
    const waiting = [await outbox.emit('thing', 'a', 1), await outbox.emit('thing', 'a', 2)];
    const relay = RelayProcess.start({ env });
    try {
      await relay.waitForLine(/mode: polling/);
      await outbox.drained();
      const later = await outbox.emit('thing', 'a', 3);
      await outbox.drained();
      assert.equal((await exhibits.text('/readyz')).status, 200);
      const { mode, reason } = await exhibits.status();
      assert.deepEqual({ mode, reason }, { mode: 'polling', reason: 'configured' });
      assert.equal((await exhibits.scrape()).value('outbox_relay_mode', 'mode="polling"'), 1);
      await terminated(relay);
      assert.deepEqual(printedIds(relay), [...waiting, later]);
    } finally {
      await relay.destroy();
      await outbox.drop();
      await role.drop(server.url);
    }
  });

  test(
    'P2 a commit that everybody sees and that a crash takes back is never published',
    { timeout: 60_000 },
    async () => {
      const outbox = await openOutbox(server.url);
      const exhibits = await ExhibitReader.open();
      // Stopped there, a relay can't write what it has published: its own commit would save the event's.
      const relay = RelayProcess.start({
        env: { ...outbox.env, ...POLLING, ...exhibits.env, BROKER: 'stdout' },
        fault: 'after-publish-before-settle:stop',
      });
      try {
        await relay.waitForLine(/mode: polling/);
        const { id: gone, survived } = await emitInMemory(outbox);
        await relay.waitForLine(new RegExp(gone), PUBLISHED_WITHIN_MS).catch(() => undefined);
        await server.stop('immediate');
        await server.start();
        const kept = await survived();
        assert.ok(kept || !printedIds(relay).includes(gone), 'published, and it is gone');
        // The relay was not merely deaf: the next event arrives.
        const next = await outbox.emit('thing', 'a', 'next');
        if (!kept) await relay.waitForLine(new RegExp(next));
      } finally {
        await relay.destroy();
        await outbox.drop();
      }
    },
  );
});
