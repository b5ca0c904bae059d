import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pace } from '../../../src/pipeline/pace.ts';

/** Rests after each of `writes` writes of `events` events, `everyMs` apart. */
function rests(events: number, everyMs: number, writes: number): number[] {
  const pace = new Pace(0, 10);
  return Array.from({ length: writes }, (_, number) => pace.restAfter(events, (number + 1) * everyMs));
}

test('P4 no rest at a low rate, whatever the size of a write: what is not written is what a kill repeats', () => {
  assert.ok(rests(1, 1, 1000).every((rest) => rest === 0));
  assert.ok(rests(30, 10, 1000).every((rest) => rest === 0));
  assert.ok(rests(300, 100, 1000).every((rest) => rest === 0));
});

test('P4 a single burst is no load', () => {
  const pace = new Pace(0, 10);
  for (let nowMs = 1; nowMs <= 500; nowMs++) pace.restAfter(1, nowMs);
  assert.equal(pace.restAfter(200, 501), 0);
});

test('under load it rests soon, however small each write is', () => {
  for (const [events, everyMs] of [
    [10, 1],
    [100, 10],
    [5000, 50],
  ] as const) {
    const at = rests(events, everyMs, 500).findIndex((rest) => rest > 0);
    assert.ok(at >= 0 && at * everyMs <= 200, `${events} every ${everyMs} ms: ${at}`);
  }
});

test('writes within the same instant are counted, and nothing is divided by zero', () => {
  const pace = new Pace(0, 10);
  for (let write = 0; write < 10; write++) assert.ok(Number.isFinite(pace.restAfter(5, 0)));
});
