import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lateMessages } from '../../support/late-messages.ts';
import type { TargetMessage } from '../../support/target.ts';

function message(key: string, token: number): TargetMessage {
  return { id: '1', key, payload: null, headers: { 'lease-token': String(token) } };
}

test('late messages: those of an earlier leader behind a later one on the same key', () => {
  const received = [
    message('a', 1),
    message('b', 2),
    message('a', 1),
    message('a', 2),
    message('a', 1),
    message('b', 1),
  ];
  assert.deepEqual([...lateMessages(received)], [[1, 2]]);
  assert.throws(() => lateMessages([{ ...message('a', 1), headers: {} }]), /without lease-token/);
});
