import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, describe, test } from 'node:test';
import { Client } from 'pg';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import { CaptureScene } from '../support/capture.ts';
import { until } from '../support/until.ts';

/** So long the relay would have time to pass over the table without the event. */
const GIVEN_MS = 2_000;

async function begin(client: Client): Promise<string> {
  await client.query('begin');
  const { rows } = await client.query<{ xid: string }>('select pg_current_xact_id()::text as xid');
  return rows[0]?.xid ?? '';
}

/** From the return on commits wait, or don't: the checkpointer tells them whether there are standbys to wait for. */
async function standbys(scene: CaptureScene, names: string): Promise<void> {
  await scene.sql(`alter system set synchronous_standby_names = '${names}'`);
  await scene.sql('select pg_reload_conf()');
  await until(
    async () => (await scene.value(`select current_setting('synchronous_standby_names')`)) === names,
    { what: 'the setting to be read' },
  );
  await scene.sql('checkpoint');
}

describe('a commit that the log has and nobody can see yet', () => {
  let server: PostgresServer;

  before(async () => void (server = await startPostgres()));
  after(async () => await server.remove());

  test('P1 it is in the slot’s snapshot: the pass over the table waits until it can be seen', async () => {
    const scene = await CaptureScene.open({
      serverUrl: server.url,
      env: { SOURCE: 'streaming', CLEANUP: 'none' },
    });
    const clients: Client[] = [];
    const open = async (): Promise<Client> => {
      const client = new Client({ connectionString: scene.database.url });
      clients.push(client);
      await client.connect();
      return client;
    };
    const untilWaitedFor = async (xid: string): Promise<void> =>
      void (await until(
        async () =>
          (await scene.count(
            `pg_locks where locktype = 'transactionid' and not granted and transactionid::text = '${xid}'`,
          )) === 1,
        { what: 'the slot to wait for the transaction' },
      ));
    const awaitStandby = async (names: string): Promise<void> => await standbys(scene, names);
    try {
      const [first, second, writer] = [await open(), await open(), await open()];
      const firstXid = await begin(first);
      const relay = scene.relay();
      await untilWaitedFor(firstXid);
      const secondXid = await begin(second);
      await first.query('rollback');
      await untilWaitedFor(secondXid);
      await awaitStandby('nobody');
      const inserting = writer.query(`select outbox_emit('order', 'key', 'Placed', '{"n": 1}')`);
      await until(async () => (await scene.count(`pg_stat_activity where wait_event = 'SyncRep'`)) === 1, {
        what: 'the commit to wait for a standby',
      });
      await second.query('rollback');
      await sleep(GIVEN_MS);
      assert.deepEqual([relay.numbers, await scene.progress('handover')], [[], null]);
      await awaitStandby('');
      await inserting;
      await relay.logged(/mode: streaming/);
      assert.deepEqual(relay.numbers, [1]);
    } finally {
      await awaitStandby('');
      await Promise.all(clients.map(async (client) => await client.end()));
      await scene.close();
    }
  });

  test(
    'P4 P5 its event was delivered by a stream that is gone: polling does not send it again',
    { timeout: 180_000 },
    async () => {
      const scene = await CaptureScene.open({ serverUrl: server.url });
      const writer = new Client({ connectionString: scene.database.url });
      const awaitStandby = async (names: string): Promise<void> => await standbys(scene, names);
      try {
        await writer.connect();
        const relay = await scene.streaming();
        await awaitStandby('nobody');
        const inserting = writer.query(`select outbox_emit('order', 'key', 'Placed', '{"n": 1}')`);
        await until(() => relay.numbers.length === 1, { what: 'the stream to bring it' });
        assert.equal(await scene.count('outbox'), 0, 'nobody sees its row');
        const from = relay.logLines.length;
        await scene.dropSlot();
        // The stage that ends waits for the row as long as for an answer of the broker.
        await relay.logged(/mode: polling/, 90_000, from);
        await awaitStandby('');
        await inserting;
        await scene.untilEmpty();
        await relay.logged(/mode: streaming/, 60_000, from);
        await scene.insert(1, 2);
        await scene.untilEmpty();
        assert.deepEqual(relay.numbers, [1, 2]);
      } finally {
        await awaitStandby('');
        await writer.end();
        await scene.close();
      }
    },
  );
});
