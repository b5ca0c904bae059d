import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { ProgressStore } from '../../src/pipeline/settle/progress.ts';
import type { Identity } from '../../src/pipeline/settle/settled-runs.ts';
import { CaptureScene } from '../support/capture.ts';

const EVENTS = 4_000;
const REUSED = 60;
/** Measured: 3 where each row is searched in the runs, 300 where it is compared with every run. */
const MOST_TIMES_AS_LONG = 30;

async function insertAtOnce(scene: CaptureScene, count: number): Promise<void> {
  await scene.sql(
    `select count(outbox_emit('order', 'key-' || n % 10, 'Placed', '{}')) from generate_series(1, $1::int) as n`,
    [count],
  );
}

describe('what a write removes', () => {
  let scene: CaptureScene | undefined;

  afterEach(async () => {
    await scene?.close();
    scene = undefined;
  });

  for (const cleanup of ['delete', 'mark'] as const) {
    test(`P1 P5 CLEANUP=${cleanup}: exactly the settled rows, in a time that grows with their number alone`, async () => {
      const here = (scene = await CaptureScene.open({ env: { CLEANUP: cleanup } }));
      await here.handOver();
      const waiting = cleanup === 'mark' ? 'where delivered_at is null' : '';
      const { config, client } = here;
      const store = new ProgressStore(config, BigInt((await here.progress('lease_token')) ?? 0));
      const slotCreatedLsn = (await store.read(client))?.slotCreatedLsn ?? 0n;
      const remove = async (events: readonly Identity[]): Promise<{ removed: number; ms: number }> => {
        const write = { settled: [], removable: events, retried: [], position: slotCreatedLsn, beyond: [] };
        const beganMs = performance.now();
        const { removed } = await store.write(client, write, 'complete', slotCreatedLsn);
        return { removed, ms: performance.now() - beganMs };
      };
      await insertAtOnce(here, 3 * EVENTS + REUSED);
      const rows = await here.sql<'seq' | 'xid'>('select seq::text, xid::text from outbox o order by o.seq');
      const events = rows.map(({ seq, xid }) => ({ seq: Number(seq), xid: Number(xid) }));

      const together = await remove(events.slice(0, EVENTS));
      assert.equal(together.removed, EVENTS);
      const rest = events.slice(EVENTS + REUSED);
      const other = rest.slice(0, 2).map(({ seq, xid }) => ({ seq, xid: xid + 1 }));
      assert.equal((await remove(other)).removed, 0, 'the same numbers of another transaction');
      const reused = events.slice(EVENTS, EVENTS + REUSED);
      // Numbers of before the sequence was set back, and the next of after it: the rows in the table are not the settled ones.
      const across = reused.map(({ seq, xid }, index) => ({
        seq,
        xid: index < REUSED / 2 ? 3 : xid,
      }));
      assert.equal((await remove(across)).removed, REUSED / 2);
      assert.equal((await remove(reused)).removed, REUSED / 2);
      const everySecond = rest.filter((_, index) => index % 2 === 0);
      const apart = await remove(everySecond);
      assert.equal(apart.removed, EVENTS);
      const left = await here.sql<'seq'>(`select seq::text from outbox o ${waiting} order by o.seq`);
      assert.deepEqual(
        left.map(({ seq }) => Number(seq)),
        rest.filter((_, index) => index % 2 === 1).map(({ seq }) => seq),
      );
      assert.ok(apart.ms < MOST_TIMES_AS_LONG * together.ms, `${together.ms} ms, with gaps ${apart.ms} ms`);
    });

    test(`P6 CLEANUP=${cleanup}: of what lies between events far apart nothing is read`, async () => {
      const here = (scene = await CaptureScene.open({ env: { CLEANUP: cleanup } }));
      await here.handOver();
      const store = new ProgressStore(here.config, BigInt((await here.progress('lease_token')) ?? 0));
      const slotCreatedLsn = (await store.read(here.client))?.slotCreatedLsn ?? 0n;
      await insertAtOnce(here, 1_000);
      const rows = await here.sql<'seq' | 'xid'>('select seq::text, xid::text from outbox o order by o.seq');
      const events = rows.map(({ seq, xid }) => ({ seq: Number(seq), xid: Number(xid) }));
      const far = [...events.slice(0, 2), ...events.slice(-2)];
      const entriesRead = async (): Promise<number> => {
        await here.client.query('select pg_stat_force_next_flush()');
        const [row] = await here.sql<'read'>(
          `select sum(idx_tup_read)::text as read from pg_stat_user_indexes where relname = 'outbox'`,
        );
        return Number(row?.read);
      };
      const before = await entriesRead();
      const write = {
        settled: [],
        removable: far,
        retried: [],
        position: slotCreatedLsn,
        beyond: [],
      };
      const { removed } = await store.write(here.client, write, 'complete', slotCreatedLsn);
      assert.equal(removed, far.length);
      const read = (await entriesRead()) - before;
      assert.ok(read >= far.length && read < 50, `${read} entries read`);
    });
  }
});
