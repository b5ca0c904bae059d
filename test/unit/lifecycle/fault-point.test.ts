import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { faultPoint, installFaultHook } from '../../../src/lifecycle/fault-point.ts';

describe('fault points', () => {
  it('tell an installed hook where the program is, before the next instruction', (t) => {
    t.after(() => installFaultHook(undefined));
    const seen: string[] = [];
    faultPoint('after-slot-create');
    installFaultHook((point) => seen.push(point));
    faultPoint('during-drain');
    assert.deepEqual(seen, ['during-drain']);
    installFaultHook(undefined);
    faultPoint('after-acknowledge');
    assert.equal(seen.length, 1);
  });
});
