import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { type Run } from '../../../../src/pipeline/settle/settled-runs.ts';
import { Settlement, type Written } from '../../../../src/pipeline/settle/settlement.ts';
import { eventOf, transactionOf } from '../builders.ts';
import { START, ALL, log, schedule, World } from './settlement-world.ts';

describe('Settlement', () => {
  it('P1 P4 from any progress row a restart brings every unsettled event, and none that the row knows', () => {
    fc.assert(
      fc.property(log, schedule, fc.constantFrom(undefined, 0, 3), (transactions, steps, smallRuns) => {
        const world = new World(transactions, smallRuns);
        for (const step of steps) world.apply(step);
        world.finish();
      }),
      { numRuns: 700 },
    );
  });

  it('P4 the last write before a stop says all that is known', () => {
    const settlement = new Settlement({ position: START, before: [], beforeUntil: START, smallRuns: 0 });
    const transaction = transactionOf({ xid: 7 });
    settlement.begin([transaction], START);
    let known: readonly Run[] = [];
    const write = (whole: boolean): void => {
      const next = settlement.nextWrite(5_000, whole);
      known = next.beyond ?? known;
      settlement.committed(next, ALL);
      settlement.onDisk(next);
    };
    for (let seq = 0; seq < 100; seq += 2) {
      settlement.settle([{ event: eventOf(seq, transaction) }]);
      write(false);
    }
    assert.ok(settlement.owesBeyond && known.length < 50);
    write(true);
    assert.equal(known.length, 50);
    assert.ok(!settlement.owesBeyond);
  });

  it('P1 the position in the row never covers what is settled but not yet in a write', () => {
    const settlement = new Settlement({ position: START, before: [], beforeUntil: START });
    const transaction = transactionOf({ endLsn: 110n });
    const events = [eventOf(1, transaction), eventOf(2, transaction), eventOf(3, transaction)];
    settlement.begin([transaction], 110n);
    settlement.settle(events.map((event) => ({ event })));
    const write = settlement.nextWrite(2);
    assert.equal(write.position, START);
    assert.deepEqual(write.beyond, [{ seqFrom: 1, seqTo: 2, xidFrom: 1, xidTo: 1 }]);
    assert.equal(settlement.unwritten, 3);
    assert.equal(settlement.committed(write, ALL), START);
    assert.equal(settlement.committed(settlement.nextWrite(2), ALL), 110n);
    assert.equal(settlement.unwritten, 0);
  });

  it('what an earlier session settled is known until its end of the log is passed, then forgotten', () => {
    const before = [{ seqFrom: 5, seqTo: 6, xidFrom: 1, xidTo: 1 }];
    const settlement = new Settlement({ position: START, before, beforeUntil: 200n });
    const transaction = transactionOf({ endLsn: 150n });
    settlement.begin([transaction], 150n);
    assert.ok(settlement.settledBefore(eventOf(5, transaction)));
    assert.ok(
      !settlement.settledBefore(eventOf(5, transactionOf({ xid: 2 }))),
      'the same number after a reset',
    );
    const early = settlement.nextWrite(10);
    assert.deepEqual([early.position, early.beyond], [150n, before]);
    settlement.committed(early, ALL);
    settlement.begin([], 200n);
    assert.deepEqual(settlement.nextWrite(10).beyond, []);
  });

  it('P5 rows that a write could not see yet are removed by a later one, and are no orphans meanwhile', () => {
    const settlement = new Settlement({ position: START, before: [], beforeUntil: START });
    const old = transactionOf({ xid: 5, endLsn: 110n });
    const fresh = transactionOf({ xid: 9, endLsn: 120n });
    settlement.begin([old, fresh], 120n);
    settlement.settle([{ event: eventOf(1, old) }, { event: eventOf(3, fresh) }]);
    const unseeing: Written = { removed: 1, snapshot: { xmin: 9, xmax: 12, running: [9, 11] } };
    const first = settlement.nextWrite(10);
    assert.equal(settlement.committed(first, unseeing), 120n, 'the events are settled all the same');
    assert.ok(settlement.unseenCount > 0);
    assert.deepEqual(settlement.carry().unseen, [{ seq: 3, xid: 9 }]);
    const second = settlement.nextWrite(10);
    assert.deepEqual(second.removable, [{ seq: 3, xid: 9 }]);
    settlement.committed(second, { removed: 0, snapshot: { xmin: 11, xmax: 12, running: [11] } });
    assert.equal(settlement.unseenCount, 0, 'seen and not there: somebody else removed it');
  });

  it('P7 of the unseen each write tries a few, in turns, and forgets none', () => {
    const unseen = [1, 2, 3, 4, 5].map((seq) => ({ seq, xid: 9 }));
    const settlement = new Settlement({ position: START, before: [], beforeUntil: START, unseen });
    const hidden: Written = { removed: 0, snapshot: { xmin: 9, xmax: 12, running: [9] } };
    const tried = [0, 1, 2].map(() => {
      const write = settlement.nextWrite(2);
      settlement.committed(write, hidden);
      return write.removable.map(({ seq }) => seq);
    });
    assert.deepEqual(tried, [
      [1, 2],
      [3, 4],
      [1, 5],
    ]);
    for (let left = 5; left > 0; left -= 2) {
      assert.ok(settlement.unseenCount > 0);
      settlement.committed(settlement.nextWrite(2), ALL);
    }
    assert.equal(settlement.unseenCount, 0);
  });

  it('P1 a number that was given out again waits for the next write: one statement can not tell both', () => {
    const settlement = new Settlement({ position: START, before: [], beforeUntil: START });
    const old = transactionOf({ xid: 5, endLsn: 110n });
    const reset = transactionOf({ xid: 9, endLsn: 120n });
    settlement.begin([old, reset], 120n);
    settlement.settle([{ event: eventOf(1, reset) }, { event: eventOf(2, old) }, { event: eventOf(1, old) }]);
    const first = settlement.nextWrite(10);
    assert.deepEqual(
      first.removable.map(({ seq, xid }) => [seq, xid]),
      [
        [1, 9],
        [2, 5],
      ],
    );
    assert.equal(first.position, START, 'one event of the first transaction is still to be written');
    assert.equal(settlement.unwritten, 3);
    settlement.committed(first, { ...ALL, removed: 2 });
    const second = settlement.nextWrite(10);
    assert.deepEqual(
      second.removable.map(({ seq, xid }) => [seq, xid]),
      [[1, 5]],
    );
    assert.equal(second.position, 120n);
  });

  it('P7 a transaction of any size whose numbers have gaps: what the writes say of it stays in proportion to its events', () => {
    const settlement = new Settlement({ position: START, before: [], beforeUntil: START });
    const transaction = transactionOf({ xid: 7 });
    settlement.begin([transaction], START);
    const batch = 500;
    const batches = 100;
    let said = 0;
    let known: readonly Run[] = [];
    for (let i = 0; i < batches; i++) {
      const events = Array.from({ length: batch }, (_, n) => eventOf((i * batch + n) * 2, transaction));
      settlement.settle(events.map((event) => ({ event })));
      const write = settlement.nextWrite(5_000);
      said += write.beyond?.length ?? 0;
      known = write.beyond ?? known;
      settlement.committed(write, ALL);
      settlement.onDisk(write);
      const missing = (i + 1) * batch - known.length;
      assert.ok(missing <= batch + (i * batch) / 10, `${missing} events are not in the row`);
    }
    assert.ok(said < 15 * batch * batches, `${said} runs for ${batch * batches} events`);
  });

  it('one write at a time', () => {
    const settlement = new Settlement({ position: START, before: [], beforeUntil: START });
    const write = settlement.nextWrite(1);
    assert.throws(() => settlement.nextWrite(1), RangeError);
    settlement.committed(write, ALL);
    assert.throws(() => settlement.committed(write, ALL), RangeError);
  });
});
