import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import {
  containsEvent,
  flattenRuns,
  mergeRuns,
  toRuns,
  unflattenRuns,
  type Identity,
  type Run,
} from '../../../../src/pipeline/settle/settled-runs.ts';

/** Numbers drawn by concurrent writers: `seq` unique, `xid` in the main rising with it. */
const events: fc.Arbitrary<Identity[]> = fc
  .uniqueArray(fc.tuple(fc.integer({ min: 1, max: 120 }), fc.integer({ min: 0, max: 9 })), {
    selector: ([seq]) => seq,
    maxLength: 80,
  })
  .map((pairs) => pairs.map(([seq, spread]) => ({ seq, xid: 1_000 + seq * 3 + spread })));

function numbersOf(runs: readonly Run[]): number[] {
  return runs.flatMap(({ seqFrom, seqTo }) =>
    Array.from({ length: seqTo - seqFrom + 1 }, (_, i) => seqFrom + i),
  );
}

function seqsOf(list: readonly Identity[]): number[] {
  return list.map(({ seq }) => seq).toSorted((a, b) => a - b);
}

function assertWellFormed(runs: readonly Run[]): void {
  for (const [index, run] of runs.entries()) {
    assert.ok(run.seqFrom <= run.seqTo && run.xidFrom <= run.xidTo);
    const before = runs[index - 1];
    if (before) assert.ok(before.seqTo + 1 < run.seqFrom, 'sorted, apart, and joined where adjacent');
  }
}

describe('settled runs', () => {
  it('P5 runs cover exactly the settled events, nothing between them', () => {
    fc.assert(
      fc.property(events, (settled) => {
        const runs = toRuns(settled);
        assertWellFormed(runs);
        assert.deepEqual(numbersOf(runs), seqsOf(settled));
        for (const event of settled) {
          assert.ok(containsEvent(runs, event));
          const run = runs.find(({ seqFrom, seqTo }) => seqFrom <= event.seq && event.seq <= seqTo) as Run;
          assert.ok(run.xidFrom <= event.xid && event.xid <= run.xidTo);
        }
        const numbers = new Set(seqsOf(settled));
        for (let seq = 0; seq <= 122; seq++) {
          if (!numbers.has(seq)) assert.ok(!containsEvent(runs, { seq, xid: 1_000 + seq * 3 }));
        }
      }),
    );
  });

  it('merging pieces in any order gives the same runs as all at once', () => {
    fc.assert(
      fc.property(events, fc.array(fc.nat(5)), (settled, parts) => {
        const pieces: Identity[][] = Array.from({ length: 6 }, () => []);
        for (const [index, event] of settled.entries()) pieces[parts[index] ?? 0]?.push(event);
        assert.deepEqual(mergeRuns(...pieces.map(toRuns)), toRuns(settled));
        assert.deepEqual(
          mergeRuns(toRuns(settled), toRuns(settled)),
          toRuns(settled),
          'doubles are harmless',
        );
      }),
    );
  });

  it('P1 a number that is drawn again after a reset of the sequence is another event', () => {
    fc.assert(
      fc.property(events, (settled) => {
        const runs = toRuns(settled);
        for (const { seq } of settled) {
          assert.ok(!containsEvent(runs, { seq, xid: 900 }), 'older transaction');
          assert.ok(!containsEvent(runs, { seq, xid: 2_000 }), 'newer transaction');
        }
      }),
    );
  });

  it('comes back from the progress row as it went in', () => {
    fc.assert(
      fc.property(events, (settled) => {
        const runs = toRuns(settled);
        assert.deepEqual(unflattenRuns(flattenRuns(runs)), runs);
      }),
    );
    assert.deepEqual(unflattenRuns([]), []);
  });

  it('P7 a transaction of a million adjacent events is one run', () => {
    const million = Array.from({ length: 1_000_000 }, (_, i) => ({ seq: i + 1, xid: 7 }));
    assert.deepEqual(toRuns(million), [{ seqFrom: 1, seqTo: 1_000_000, xidFrom: 7, xidTo: 7 }]);
  });
});
