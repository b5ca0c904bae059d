import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Client } from 'pg';
import type { ProgressStore } from '../../../../src/pipeline/settle/progress.ts';
import { Settlement, type Write, type Written } from '../../../../src/pipeline/settle/settlement.ts';
import { Settler } from '../../../../src/pipeline/settle/settler.ts';
import { until } from '../../../support/until.ts';
import { eventOf, transactionOf } from '../builders.ts';

const SEEN: Written = { removed: Infinity, snapshot: { xmin: 1, xmax: 1e9, running: [] } };

/** A database whose transactions end when the test says so. */
class HeldStore {
  readonly writes: Write[] = [];
  readonly ends: PromiseWithResolvers<Written>[] = [];

  write(_client: Client, write: Write): Promise<Written> {
    this.writes.push(write);
    const end = Promise.withResolvers<Written>();
    this.ends.push(end);
    return end.promise;
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
    client: {} as Client,
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
    assert.deepEqual(store.writes[1]?.runs, [{ seqFrom: 5, seqTo: 5, xidFrom: 5, xidTo: 5 }]);
    store.ends[1]?.resolve(SEEN);
    settler.drain();
    await running;
  });
});
