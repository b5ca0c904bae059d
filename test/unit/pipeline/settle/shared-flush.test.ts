import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { SharedFlush } from '../../../../src/pipeline/settle/shared-flush.ts';

/** Lets writes pass that flush for themselves, until the next may not. */
function untilShared(flush: SharedFlush<unknown>): number {
  for (let own = 0; own < 1_000; own++) if (flush.next()) return own;
  throw new Error('others are never relied on');
}

function relying<T>(): { flush: SharedFlush<T>; own: number } {
  const flush = new SharedFlush<T>();
  return { own: untilShared(flush), flush };
}

describe('a flush left to others', () => {
  it('is tried only after writes that flush for themselves', () => {
    const { flush, own } = relying();
    assert.ok(own > 0);
    assert.equal(flush.next(), true, 'and again, as long as it works');
  });

  it('P1 a write counts when the log is on disk as far as it went at the first look after its commit', () => {
    const { flush } = relying<string>();
    flush.add('first');
    assert.deepEqual(flush.observe({ inserted: 100n, flushed: 99n }), []);
    flush.add('second');
    assert.deepEqual(flush.observe({ inserted: 120n, flushed: 110n }), ['first']);
    assert.deepEqual(flush.observe({ inserted: 140n, flushed: 119n }), []);
    assert.deepEqual(flush.observe({ inserted: 140n, flushed: 120n }), ['second']);
    assert.equal(flush.isWaiting, false);
  });

  it('P1 nothing counts before its commit is on disk, whatever the looks, and all of it in order', () => {
    const step = fc.record({ write: fc.boolean(), grows: fc.nat(50), flushes: fc.nat(120) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { flush } = relying<{ end: number }>();
        let inserted = 100;
        let flushed = 100;
        let lastEnd = 0;
        for (const { write, grows, flushes } of steps) {
          // A write that is now committed ends here, and others write behind it before the next look.
          if (write) flush.add({ end: (inserted += 1 + grows) });
          inserted += grows;
          flushed = Math.max(flushed, Math.min(inserted, flushes + flushed - 60));
          const ends = { inserted: BigInt(inserted), flushed: BigInt(flushed) };
          for (const { end } of flush.observe(ends)) {
            assert.ok(end <= flushed, `${end} counts, the disk has ${flushed}`);
            assert.ok(end > lastEnd);
            lastEnd = end;
          }
        }
        const left = flush.observe({ inserted: BigInt(inserted), flushed: BigInt(inserted) });
        assert.ok(left.every(({ end }) => end > lastEnd));
        assert.equal(flush.isWaiting, false);
      }),
    );
  });

  it('P1 is overdue when nobody else commits; then the next flush for themselves', () => {
    const { flush, own } = relying<string>();
    flush.add('first');
    for (let looks = 0; !flush.isOverdue; looks++) {
      assert.ok(looks < 20);
      assert.equal(flush.next(), true);
      assert.deepEqual(flush.observe({ inserted: 100n, flushed: 99n }), []);
    }
    assert.equal(flush.next(), false);
    flush.add('second');
    assert.deepEqual(flush.flushed(), ['first', 'second']);
    assert.equal(untilShared(flush), own);
  });
});
