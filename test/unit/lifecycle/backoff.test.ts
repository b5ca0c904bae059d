import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { Backoff } from '../../../src/lifecycle/backoff.ts';

describe('Backoff', () => {
  it('doubles to its cap; jitter takes at most half', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1_000 }),
        fc.integer({ min: 1_000, max: 60_000 }),
        fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { minLength: 1, maxLength: 100 }),
        (firstMs, maxMs, randoms) => {
          let at = 0;
          const backoff = new Backoff({ firstMs, maxMs, random: () => randoms[at] as number });
          for (at = 0; at < randoms.length; at++) {
            const ceiling = Math.min(maxMs, firstMs * 2 ** at);
            assert.equal(backoff.attempts, at);
            const delay = backoff.next();
            assert.ok(delay >= ceiling / 2 && delay < ceiling);
          }
        },
      ),
    );
  });

  it('stays finite however long it fails, and begins anew after a reset', () => {
    const backoff = new Backoff({ firstMs: 100, maxMs: 10_000, random: () => 0.5 });
    for (let i = 0; i < 5_000; i++) backoff.next();
    assert.equal(backoff.next(), 7_500);
    backoff.reset();
    assert.deepEqual([backoff.attempts, backoff.next()], [0, 75]);
  });

  it('an abort ends the wait at once, without an error; also one that came before', async () => {
    const backoff = new Backoff({ firstMs: 3_600_000, maxMs: 3_600_000 });
    const stop = new AbortController();
    const waiting = backoff.wait(stop.signal);
    stop.abort();
    await waiting;
    await backoff.wait(stop.signal);
    assert.equal(backoff.attempts, 2);
  });
});
