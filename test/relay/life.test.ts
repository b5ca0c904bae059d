import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { describe, test } from 'node:test';
import { freePort } from '../../src/demo/services/ports.ts';
import { Scene } from '../support/crash-run.ts';
import { withClient } from '../support/database.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { assertDelivered } from '../support/judge.ts';
import { openOutbox, type Outbox } from '../support/outbox.ts';
import { Proxy } from '../support/proxy.ts';
import { type RelayProcess, type RelayExit, withRelay } from '../support/relay-process.ts';
import { rabbitmqService } from '../support/services.ts';
import { until } from '../support/until.ts';

const SHUTDOWN_TIMEOUT_MS = 3_000;
/** What a busy machine needs to end a process. By default the drain may take several times as long. */
const SLACK_MS = 5_000;

const DONE: RelayExit = { code: 0, signal: null };

/** Sends SIGTERM; resolves with the exit and how long it took. */
async function terminate(relay: RelayProcess): Promise<{ exit: RelayExit; tookMs: number }> {
  const startMs = performance.now();
  relay.kill('SIGTERM');
  const exit = await relay.exit;
  return { exit, tookMs: performance.now() - startMs };
}

async function withOutbox(run: (outbox: Outbox) => Promise<void>): Promise<void> {
  const outbox = await openOutbox();
  try {
    await run(outbox);
  } finally {
    await outbox.drop();
  }
}

/** Events are with a broker that no longer answers. */
async function withSilentBroker(
  run: (relay: RelayProcess, scene: Scene, broker: Proxy) => Promise<void>,
): Promise<void> {
  const { url } = await rabbitmqService();
  const broker = await Proxy.start(url);
  const scene = await Scene.open('rabbitmq', { brokerAddress: broker.url(url) });
  const exhibits = await ExhibitReader.open();
  const env = { SHUTDOWN_TIMEOUT_MS: String(SHUTDOWN_TIMEOUT_MS), ...exhibits.env };
  const relay = scene.startRelay({ env });
  try {
    await relay.waitForLine(/mode: streaming/);
    broker.blackHole();
    scene.shop.start();
    const inFlight = async (): Promise<number> =>
      (await exhibits.scrape()).value('outbox_relay_in_flight_events') ?? 0;
    await until(async () => (await inFlight()) > 100, { what: 'events in flight' });
    await scene.shop.stop();
    await run(relay, scene, broker);
  } finally {
    await relay.destroy();
    await broker.close();
    await scene.close();
  }
}

describe('P4 SIGTERM', () => {
  test('under load: exit 0, no duplicate, and the slot itself confirms what the progress row says', async () => {
    const scene = await Scene.open('kafka');
    const relay = scene.startRelay();
    try {
      scene.shop.start();
      await relay.waitForLine(/mode: streaming/);
      await until(async () => (await scene.target.count()) > 500, { what: 'a flow', timeoutMs: 30_000 });
      assert.deepEqual((await terminate(relay)).exit, DONE, relay.output);
      await withClient(scene.database.url, async (client) => {
        const { rows } = await client.query<{ confirmed: string; durable: string }>(
          `select confirmed_flush_lsn::text as confirmed, durable_lsn::text as durable
             from pg_replication_slots s join outbox_relay_progress p on p.slot_name = s.slot_name
            where s.slot_name = $1`,
          [scene.database.name],
        );
        assert.equal(rows[0]?.confirmed, rows[0]?.durable);
      });
      await scene.shop.stop();
      const last = scene.startRelay();
      await scene.drained();
      assert.deepEqual((await terminate(last)).exit, DONE, last.output);
      assertDelivered(await scene.verdict(), { maxDuplicates: 0 });
    } finally {
      await relay.destroy();
      await scene.close();
    }
  });

  test('while the broker is silent: exit 1 in time, with the number of unknowns; they are delivered later', async () => {
    await withSilentBroker(async (relay, scene, broker) => {
      const { exit, tookMs } = await terminate(relay);
      assert.deepEqual(exit, { code: 1, signal: null }, relay.output);
      assert.ok(tookMs < SHUTDOWN_TIMEOUT_MS + SLACK_MS, `${tookMs} ms`);
      const line = JSON.parse(await relay.waitForLine(/stopped before everything was confirmed/)) as {
        unknown: number;
      };
      assert.ok(line.unknown >= 1, JSON.stringify(line));
      const waiting = await scene.waiting();
      assert.ok(waiting >= line.unknown, `${waiting} rows wait, ${line.unknown} are unknown`);
      broker.heal();
      const last = scene.startRelay();
      await scene.drained();
      assert.deepEqual((await terminate(last)).exit, DONE, last.output);
      assertDelivered(await scene.verdict(), { maxDuplicates: line.unknown });
    });
  });

  test('a second signal ends it at once', async () => {
    await withSilentBroker(async (relay) => {
      relay.kill('SIGTERM');
      const startMs = performance.now();
      // The second one can only be told from the first when that was taken.
      await until(async () => (await terminateAgain(relay)) !== undefined, {
        what: 'the end',
        intervalMs: 100,
      });
      assert.equal((await relay.exit).code, 143);
      assert.ok(performance.now() - startMs < SHUTDOWN_TIMEOUT_MS, 'it did not wait for the drain');
    });
  });

  test('while the database is silent: exit 1 in time', async () => {
    const scene = await Scene.open('rabbitmq');
    const database = await Proxy.start(scene.database.url);
    const env = {
      DATABASE_URL: database.url(scene.database.url),
      SHUTDOWN_TIMEOUT_MS: String(SHUTDOWN_TIMEOUT_MS),
    };
    const relay = scene.startRelay({ env });
    try {
      scene.shop.start();
      await relay.waitForLine(/mode: streaming/);
      await until(async () => (await scene.target.count()) > 200, { what: 'a flow', timeoutMs: 30_000 });
      database.blackHole();
      const { exit, tookMs } = await terminate(relay);
      assert.deepEqual(exit, { code: 1, signal: null }, relay.output);
      assert.ok(tookMs < SHUTDOWN_TIMEOUT_MS + SLACK_MS, `${tookMs} ms`);
      await scene.shop.stop();
      database.heal();
      database.cut();
      const last = scene.startRelay();
      await scene.drained();
      assert.deepEqual((await terminate(last)).exit, DONE, last.output);
      assertDelivered(await scene.verdict(), { maxDuplicates: 1_000 });
    } finally {
      await relay.destroy();
      await database.close();
      await scene.close();
    }
  });

  test('while it waits for a database that refuses, or that does not answer: exit 0 at once', async () => {
    // The proxy resets what it closes.
    const database = createServer((socket) => socket.on('error', () => undefined)).listen(0, '127.0.0.1');
    await once(database, 'listening');
    const { port: silentPort } = database.address() as AddressInfo;
    const silent = await Proxy.start(`127.0.0.1:${silentPort}`);
    silent.blackHole();
    try {
      for (const port of [await freePort(), silent.port]) {
        const env = {
          DATABASE_URL: `postgresql://nobody@127.0.0.1:${port}/none`,
          BROKER: 'stdout',
          HTTP_PORT: '0',
        };
        await withRelay(env, async (relay) => {
          await relay.waitForLine(port === silent.port ? /starts/ : /Nothing listens there/);
          if (port === silent.port) await until(() => silent.connections > 0, { what: 'a connection' });
          const { exit, tookMs } = await terminate(relay);
          assert.deepEqual(exit, DONE, relay.output);
          assert.ok(tookMs < SLACK_MS, `${tookMs} ms`);
        });
      }
    } finally {
      await silent.close();
      database.close();
    }
  });

  test('while it makes a slot behind an open transaction: exit 0 at once, and no slot is left', async () => {
    await withOutbox(async (outbox) => {
      await withClient(outbox.url, async (writer) => {
        await writer.query('begin; select pg_current_xact_id()');
        await withRelay({ ...outbox.env, BROKER: 'stdout' }, async (relay) => {
          await relay.waitForLine(/making a replication slot/);
          await until(async () => (await slotsOf(outbox)) === 1, { what: 'the slot to be in the making' });
          const { exit, tookMs } = await terminate(relay);
          assert.deepEqual(exit, DONE, relay.output);
          assert.ok(tookMs < SLACK_MS, `${tookMs} ms`);
          // The server notices the closed socket when it looks at it next.
          await writer.query('rollback');
          await until(async () => (await slotsOf(outbox)) === 0, { what: 'the slot to go' });
        });
      });
    });
  });
});

async function slotsOf(outbox: Outbox): Promise<number> {
  const slots = await outbox.sql('select 1 from pg_replication_slots where slot_name = $1', [outbox.name]);
  return slots.length;
}

async function terminateAgain(relay: RelayProcess): Promise<true | undefined> {
  relay.kill('SIGTERM');
  return await Promise.resolve(relay.running ? undefined : true);
}

describe('P8 two relays on one slot', () => {
  test('one leads, the other stands by and takes over within seconds of a SIGKILL; order is kept', async () => {
    const scene = await Scene.open('kafka');
    const [first, second] = [await ExhibitReader.open(), await ExhibitReader.open()];
    const leader = scene.startRelay({ env: first.env });
    try {
      scene.shop.start();
      await leader.waitForLine(/mode: streaming/);
      const other = scene.startRelay({ env: second.env });
      try {
        await other.waitForLine(/mode: standby/);
        assert.equal((await second.text('/readyz')).status, 200);
        const [leading, standing] = [await first.scrape(), await second.scrape()];
        assert.deepEqual(
          [leading.value('outbox_relay_leader'), standing.value('outbox_relay_leader')],
          [1, 0],
        );
        assert.equal(standing.value('outbox_relay_mode', 'mode="standby"'), 1);
        const before = await scene.target.count();
        await until(async () => (await scene.target.count()) > before + 500, {
          what: 'a flow',
          timeoutMs: 30_000,
        });
        assert.equal((await second.scrape()).value('outbox_relay_events_published_total') ?? 0, 0);
        const killedMs = performance.now();
        leader.kill('SIGKILL');
        await other.waitForLine(/mode: streaming/, 10_000);
        assert.ok(performance.now() - killedMs < 5_000, 'within seconds');
        await scene.shop.stop();
        await scene.drained();
        assert.deepEqual((await terminate(other)).exit, DONE, other.output);
        assertDelivered(await scene.verdict(), { maxDuplicates: 1_000 });
      } finally {
        await other.destroy();
      }
    } finally {
      await leader.destroy();
      await scene.close();
    }
  });

  test('SIGTERM while it stands by: exit 0 at once, the leader goes on', async () => {
    await withOutbox(async (outbox) => {
      const env = { ...outbox.env, BROKER: 'stdout' };
      await withRelay(env, async (leader) => {
        await leader.waitForLine(/mode: streaming/);
        await withRelay(env, async (other) => {
          await other.waitForLine(/mode: standby/);
          const { exit, tookMs } = await terminate(other);
          assert.deepEqual(exit, DONE, other.output);
          assert.ok(tookMs < SLACK_MS, `${tookMs} ms`);
        });
        const id = await outbox.emit('thing', 'a', 1);
        await leader.waitForLine(new RegExp(id));
        await outbox.drained();
        assert.deepEqual((await terminate(leader)).exit, DONE, leader.output);
      });
    });
  });
});
