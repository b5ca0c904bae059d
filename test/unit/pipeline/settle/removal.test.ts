import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { byNumber, inPortions, toRemoval, type Removal } from '../../../../src/pipeline/settle/removal.ts';
import type { Identity } from '../../../../src/pipeline/settle/settled-runs.ts';

/** What the statement of the clean-up asks of a row. `width_bucket`: how many firsts are not greater. */
function removes({ firsts, lasts, offsets, xids }: Removal, { seq, xid }: Identity): boolean {
  const run = firsts.filter((first) => first <= seq).length - 1;
  const [first, last, offset] = [firsts[run], lasts[run], offsets[run]];
  if (first === undefined || last === undefined || offset === undefined || seq > last) return false;
  return xids[offset - 1 + seq - first] === xid;
}

const identities = fc.array(
  fc.record({ seq: fc.integer({ min: 1, max: 60 }), xid: fc.integer({ min: 100, max: 104 }) }),
  { maxLength: 80 },
);
const event = (seq: number): Identity => ({ seq, xid: seq + 7 });
const key = ({ seq, xid }: Identity): string => `${seq}/${xid}`;

describe('what a write removes', () => {
  it('P1 P5 exactly the settled rows, also when numbers were given out again while events were in flight', () => {
    fc.assert(
      fc.property(identities, identities, fc.boolean(), (settled, rows, far) => {
        const spread = ({ seq, xid }: Identity): Identity => ({ seq: far ? seq * 1_000 : seq, xid });
        const { once, again } = byNumber(settled.map(spread));
        const removal = toRemoval(once);
        const wanted = new Set(once.map(key));
        for (const row of [...rows.map(spread), ...once])
          assert.equal(removes(removal, row), wanted.has(key(row)), key(row));
        assert.deepEqual(
          new Set([...once, ...again].map(key)),
          new Set(settled.map(spread).map(key)),
          'nothing is forgotten',
        );
      }),
    );
  });

  it('P1 in portions all of them, each once, and in none a number twice', () => {
    fc.assert(
      fc.property(identities, fc.integer({ min: 1, max: 9 }), (events, max) => {
        const portions = [...inPortions(events, max)];
        assert.deepEqual(new Set(portions.flat().map(key)), new Set(events.map(key)));
        for (const portion of portions) {
          assert.ok(portion.length > 0 && portion.length <= max);
          assert.equal(new Set(portion.map(({ seq }) => seq)).size, portion.length);
        }
      }),
    );
  });

  it('of adjacent numbers one run, of numbers far apart each event', () => {
    assert.deepEqual(toRemoval([]), { firsts: [], lasts: [], offsets: [], xids: [], scattered: false });
    assert.deepEqual(toRemoval([1, 2, 3, 9].map(event)), {
      firsts: [1, 9],
      lasts: [3, 9],
      offsets: [1, 4],
      xids: [8, 9, 10, 16],
      scattered: false,
    });
    assert.deepEqual(toRemoval([1, 2, 5_000].map(event)), {
      firsts: [1, 2, 5_000],
      lasts: [1, 2, 5_000],
      offsets: [1, 2, 3],
      xids: [8, 9, 5_007],
      scattered: true,
    });
  });
});
