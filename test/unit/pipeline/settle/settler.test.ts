import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Client } from 'pg';
import type { ProgressStore } from '../../../../src/pipeline/settle/progress.ts';
import type { LogEnds } from '../../../../src/postgres/log-position.ts';
import { Settlement, type Write, type Written } from '../../../../src/pipeline/settle/settlement.ts';
import { Settler } from '../../../../src/pipeline/settle/settler.ts';
import { formatLsn } from '../../../../src/postgres/lsn.ts';
import { until } from '../../../support/until.ts';
import { eventOf, transactionOf } from '../builders.ts';

const SEEN: Written = { removed: Infinity, snapshot: { xmin: 1, xmax: 1e9, running: [] } };

/** A database whose transactions end when the test says so. */
class HeldStore {
  readonly writes: Write[] = [];
  readonly ends: PromiseWithResolvers<Written>[] = [];

  get shown(): { inserted: string; flushed: string } {
    const { inserted, flushed } = this.log;
    return { inserted: formatLsn(inserted), flushed: formatLsn(flushed) };
  }

  readonly log = { inserted: 0n, flushed: 0n };
  readonly shared: boolean[] = [];
  touches = 0;

  async write(...args: Parameters<ProgressStore['write']>): Promise<Written & { logEnds: LogEnds }> {
    const [, write, , , shared = false] = args;
    const logEnds = { ...this.log };
    this.writes.push(write);
    this.shared.push(shared);
    const end = Promise.withResolvers<Written>();
    this.ends.push(end);
    return { ...(await end.promise), logEnds };
  }

  async touch(): Promise<void> {
    this.touches++;
    return await Promise.resolve();
  }
}

function setUp(): {
  store: HeldStore;
  settlement: Settlement;
  settler: Settler;
  log: string[];
  settle: (seq: number) => void;
} {
  const store = new HeldStore();
  const settlement = new Settlement({ position: 0n, before: [], beforeUntil: 0n });
  const log: string[] = [];
  const settler = new Settler({
    client: { query: async () => await Promise.resolve({ rows: [store.shown] }) } as unknown as Client,
    store: store as unknown as ProgressStore,
    settlement,
    phase: 'complete',
    slotCreatedLsn: 0n,
    acknowledge: (position) => log.push(`acknowledge ${position}`),
    onWritten: (write) => log.push(`written ${write.settled.length}`),
  });
  const settle = (seq: number): void => {
    const transaction = transactionOf({ xid: seq, endLsn: BigInt(seq * 10) });
    const event = eventOf(seq, transaction);
    settlement.begin([transaction], BigInt(seq * 10));
    settler.add([{ event }]);
  };
  return { store, settlement, settler, log, settle };
}

describe('Settler', () => {
  it('P1 acknowledges only after the write was committed; what comes meanwhile goes with the next', async () => {
    const { store, settler, log, settle } = setUp();
    const running = settler.run(new AbortController().signal);
    settle(1);
    await until(() => store.writes.length === 1, { what: 'the first write' });
    settle(2);
    settle(3);
    settler.drain();
    assert.deepEqual(log, []);
    store.ends[0]?.resolve(SEEN);
    await until(() => store.writes.length === 2, { what: 'the second write' });
    assert.deepEqual(log, ['acknowledge 10', 'written 1']);
    store.ends[1]?.resolve(SEEN);
    await running;
    assert.deepEqual(log.slice(2), ['acknowledge 30', 'written 2']);
  });

  it('P1 after a failed write nothing is acknowledged, and everything unwritten is carried', async () => {
    const { store, settlement, settler, log, settle } = setUp();
    const running = settler.run(new AbortController().signal);
    settle(1);
    await until(() => store.writes.length === 1, { what: 'the write' });
    settle(2);
    store.ends[0]?.reject(new Error('connection lost'));
    await assert.rejects(running, /connection lost/);
    const { unwritten, position } = settlement.carry();
    assert.deepEqual([unwritten.map(({ event }) => event.seq), position, log], [[1, 2], 20n, []]);
    assert.equal(settlement.written, 0n);
  });

  it('P1 what is left to the flush of others is acknowledged when it is on disk, and carried until then', async (t) => {
    const { store, settlement, settler, log, settle } = setUp();
    const stop = new AbortController();
    t.after(() => stop.abort());
    const running = settler.run(stop.signal);
    running.catch(() => undefined);
    let seq = 0;
    const write = async (): Promise<void> => {
      const n = store.writes.length + 1;
      settle(++seq);
      await until(() => store.writes.length === n, { what: `write ${n}` });
      store.ends.at(-1)?.resolve(SEEN);
    };
    do await write();
    while (store.shared.at(-1) === false);
    const first = seq;
    store.log.inserted = 50n;
    store.log.flushed = 49n;
    await write();
    assert.equal(log.includes(`acknowledge ${first * 10}`), false);
    assert.deepEqual(
      settlement.carry().unwritten.map(({ event }) => event.seq),
      [first, seq],
    );
    store.log.flushed = 50n;
    await until(() => log.includes(`acknowledge ${seq * 10}`), { what: 'the flush of others' });
    assert.equal(log.includes(`acknowledge ${first * 10}`), true);
    await write();
    store.log.inserted = 60n;
    await until(() => store.touches === 1, { what: 'a flush of its own, since nobody else flushes' });
    await until(() => log.includes(`acknowledge ${seq * 10}`), { what: 'what it flushed' });
    stop.abort(new Error('ended'));
    await assert.rejects(running, /ended/);
  });

  it('P4 a commit that arrives after its events were written is noted without waiting for more', async () => {
    const { store, settlement, settler, log } = setUp();
    const running = settler.run(new AbortController().signal);
    const transaction = transactionOf({ xid: 1, endLsn: undefined });
    settlement.begin([transaction], 0n);
    settler.add([{ event: eventOf(1, transaction) }]);
    await until(() => store.writes.length === 1, { what: 'the write' });
    store.ends[0]?.resolve(SEEN);
    await until(() => log.includes('acknowledge 0'), { what: 'its end' });
    transaction.endLsn = 10n;
    settlement.begin([], 10n);
    settler.add([]);
    await until(() => store.writes.length === 2, { what: 'the note', timeoutMs: 1_000 });
    store.ends[1]?.resolve(SEEN);
    await until(() => log.includes('acknowledge 10'), { what: 'the acknowledgement' });
    settler.drain();
    await running;
    assert.equal(store.writes.length, 2);
  });

  it('a drain with nothing to write ends at once; an abort ends a wait', async () => {
    const idle = setUp();
    const draining = idle.settler.run(new AbortController().signal);
    idle.settler.drain();
    await draining;
    const stop = new AbortController();
    const running = setUp().settler.run(stop.signal);
    stop.abort(new Error('ended'));
    await assert.rejects(running, /ended/);
  });

  it('P5 tries again by itself what it could not see', async () => {
    const { store, settler, settle } = setUp();
    const running = settler.run(new AbortController().signal);
    settle(5);
    await until(() => store.writes.length === 1, { what: 'the write' });
    store.ends[0]?.resolve({ removed: 0, snapshot: { xmin: 5, xmax: 6, running: [5] } });
    await until(() => store.writes.length === 2, { what: 'the removal' });
    assert.deepEqual(store.writes[1]?.removable, [{ seq: 5, xid: 5 }]);
    store.ends[1]?.resolve(SEEN);
    settler.drain();
    await running;
  });
});
