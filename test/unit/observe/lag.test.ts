import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  DatabaseClock,
  type LagFacts,
  SILENCE_MS,
  isGlimpse,
  lagSeconds,
  rowSinceMs,
  waitingSinceMs,
} from '../../../src/observe/lag.ts';

const time = fc.double({ min: 0, max: 4e12, noNaN: true });
const perhaps = fc.option(time, { nil: undefined });
const facts: fc.Arbitrary<LagFacts> = fc.record({
  oldestUnsettledCommitMs: perhaps,
  tableSinceMs: perhaps,
  streamGoneMs: perhaps,
  lastAnswerMs: time,
  nowMs: time,
});

test('P9 lag is never negative and never anything but a finite number', () => {
  fc.assert(
    fc.property(facts, (given) => {
      const lag = lagSeconds(given);
      assert.ok(lag >= 0 && Number.isFinite(lag) && !Object.is(lag, -0));
    }),
  );
});

test('P9 lag is at least the age of the oldest event, in the stream, in the table, or of the time without a stream', () => {
  fc.assert(
    fc.property(facts, (given) => {
      for (const since of [given.oldestUnsettledCommitMs, given.tableSinceMs, given.streamGoneMs])
        if (since !== undefined) assert.ok(lagSeconds(given) >= (given.nowMs - since) / 1000);
    }),
  );
});

test('P9 lag grows with the clock while nothing is settled', () => {
  const elapse = fc.double({ min: 1, max: 1e9, noNaN: true });
  fc.assert(
    fc.property(facts, elapse, (given, elapsedMs) => {
      const before = lagSeconds(given);
      const after = lagSeconds({ ...given, nowMs: given.nowMs + elapsedMs });
      assert.ok(after >= before);
      // Doubles near 4e12 are 0.0005 apart.
      if (before > 0) assert.ok(Math.abs(after - before - elapsedMs / 1000) < 1e-5);
    }),
  );
});

test('P9 a row counts from the second look on, at once where it says that it is old, and where looks are late', () => {
  const looks = { beforeMs: 10_000, lastMs: 11_000 };
  assert.equal(isGlimpse(11_000, looks, 11_900), true);
  assert.equal(isGlimpse(10_990, looks, 11_900), true);
  assert.equal(isGlimpse(10_000, looks, 11_900), false, 'seen by the look before');
  assert.equal(isGlimpse(3_000, looks, 11_900), false, 'old by its own time');
  assert.equal(isGlimpse(11_000, looks, 12_300), false, 'the next look is late');
  assert.equal(isGlimpse(11_000, { ...looks, beforeMs: 9_000 }, 11_900), false, 'this one was late');
});

test('P9 a database that does not answer is lag since its last answer', () => {
  fc.assert(
    fc.property(facts, (given) => {
      const silentMs = given.nowMs - given.lastAnswerMs;
      if (silentMs > SILENCE_MS) assert.ok(lagSeconds(given) >= silentMs / 1000);
    }),
    { numRuns: 2000 },
  );
});

test('P9 a row that is first seen after a silence may have waited all the time', () => {
  assert.equal(waitingSinceMs(1_000, 2_000), 2_000);
  assert.equal(waitingSinceMs(1_000, 1_001 + SILENCE_MS), 1_000);
});

test('P9 the oldest row counts from its own time where nobody holds it, and for a leader not from before its backlog', () => {
  const row = { seenMs: 9_000, createdMs: 2_000, backlogSinceMs: 5_000 };
  assert.equal(rowSinceMs(row, 'holds'), 9_000);
  assert.equal(rowSinceMs(row, 'standby'), 2_000);
  assert.equal(rowSinceMs(row, 'empty'), 5_000);
  assert.equal(rowSinceMs({ ...row, createdMs: 7_000 }, 'empty'), 7_000);
  assert.equal(
    rowSinceMs({ ...row, backlogSinceMs: 9_000 }, 'empty'),
    9_000,
    'a commit much later than its row',
  );
  for (const role of ['holds', 'empty', 'standby'] as const) {
    assert.equal(rowSinceMs({ ...row, createdMs: undefined }, role), 9_000);
    assert.equal(rowSinceMs({ ...row, createdMs: 12_000 }, role), 9_000, 'a clock that is ahead');
  }
});

test('P9 drained is 0', () => {
  const drained: LagFacts = {
    oldestUnsettledCommitMs: undefined,
    tableSinceMs: undefined,
    lastAnswerMs: 1_000_000,
    nowMs: 1_001_000,
  };
  assert.equal(lagSeconds(drained), 0);
  assert.equal(lagSeconds({ ...drained, nowMs: 1_010_000 }), 10);
  assert.equal(lagSeconds({ ...drained, oldestUnsettledCommitMs: 1_000_500 }), 0.5);
  assert.equal(lagSeconds({ ...drained, tableSinceMs: 999_000 }), 2);
  assert.equal(lagSeconds({ ...drained, oldestUnsettledCommitMs: 2_000_000 }), 0, 'a commit in the future');
});

test('P9 the clock of the database is taken from the middle of question and answer', () => {
  const clock = new DatabaseClock();
  assert.equal(clock.at(5), undefined);
  clock.observe(1_700_000_000_000, 100, 120);
  assert.equal(clock.at(110), 1_700_000_000_000);
  assert.equal(clock.at(1110), 1_700_000_001_000);
});
