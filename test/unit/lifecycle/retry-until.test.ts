import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { retryUntil } from '../../../src/lifecycle/retry-until.ts';

describe('retryUntil', () => {
  it('asks until the answer is yes', async () => {
    let asked = 0;
    assert.equal(await retryUntil(10_000, () => Promise.resolve(++asked === 4)), true);
    assert.equal(asked, 4);
  });

  it('gives up at its deadline', async () => {
    assert.equal(await retryUntil(12, () => Promise.resolve(false)), false);
  });
});
