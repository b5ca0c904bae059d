import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseFaults } from '../../support/fault.ts';

test('fault: reads point, action and hit', () => {
  assert.deepEqual(parseFaults('after-acknowledge:kill:3,during-drain:delay-250'), [
    { point: 'after-acknowledge', action: { kind: 'kill' }, hit: 3 },
    { point: 'during-drain', action: { kind: 'delay', ms: 250 }, hit: undefined },
  ]);
  assert.deepEqual(parseFaults(''), []);
});

test('fault: refuses what it does not know', () => {
  for (const text of ['x', 'x:explode', 'x:delay', 'x:kill:0']) {
    assert.throws(() => parseFaults(text), /is not <point>:<action>/);
  }
});
