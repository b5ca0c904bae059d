import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isOverdue } from '../../../../../src/pipeline/publish/rabbitmq/overdue.ts';

const MINUTE = 60_000;
const BASE = { nowMs: 0, sinceMs: 0, blockedAtMs: undefined, unblockedAtMs: 0, confirmTimeoutMs: 30_000 };

describe('overdue confirms', () => {
  test('counted from the message, or from the end of a blockage after it', () => {
    assert.ok(!isOverdue({ ...BASE, nowMs: 30_000 }));
    assert.ok(isOverdue({ ...BASE, nowMs: 30_001 }));
    assert.ok(!isOverdue({ ...BASE, nowMs: 40_000, unblockedAtMs: 10_000 }));
  });

  test('P8 a blocked broker is waited for, but not for ever', () => {
    const blocked = { ...BASE, blockedAtMs: 1_000 };
    assert.ok(!isOverdue({ ...blocked, nowMs: 29 * MINUTE }));
    assert.ok(isOverdue({ ...blocked, nowMs: 31 * MINUTE }));
    assert.ok(!isOverdue({ ...blocked, nowMs: 31 * MINUTE, confirmTimeoutMs: 60 * MINUTE }));
  });
});
