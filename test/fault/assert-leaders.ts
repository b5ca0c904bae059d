import assert from 'node:assert/strict';
import { assertDelivered } from '../support/judge.ts';
import { MAX_IN_FLIGHT_EVENTS, type LeaderFault, type LeadersResult } from './leaders.ts';

/** What a stopped process had been allowed to write and not yet written: one batch of a turn. */
const MAX_LATE_PER_ROUND = 50;

/** Throws unless every promise was kept; returns the figures in a line. `takeOverMs`: the longest that is allowed. */
export function assertLeaders(fault: LeaderFault, result: LeadersResult, takeOverMs: number): string {
  const { verdict, late, mostLeaders, takeOverMs: each } = result;
  assertDelivered(verdict, { maxDuplicates: each.length * MAX_IN_FLIGHT_EVENTS });
  assert.deepEqual(result.notReady, []);
  // None: nobody answered, and two would not have been seen.
  assert.equal(mostLeaders, 1, `${mostLeaders} call themselves the leader at the same time`);
  const perLease = [...late.values()];
  const stopped = fault === 'stop' || fault === 'lease-check';
  if (stopped) assert.ok(Math.max(0, ...perLease) <= MAX_LATE_PER_ROUND, `late: ${perLease.join(' ')}`);
  else assert.deepEqual([...late], [], 'two publishers interleaved on a key');
  assert.ok(Math.max(...each) <= takeOverMs, `taken over after ${each.map(Math.round).join(', ')} ms`);
  return figures(result);
}

function figures({ verdict, takeOverMs, takenMs, late }: LeadersResult): string {
  const sorted = takeOverMs.toSorted((a, b) => a - b);
  const p50 = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const lateCount = [...late.values()].reduce((sum, count) => sum + count, 0);
  return (
    `${verdict.committed} committed, ${verdict.duplicates} duplicates, ${lateCount} late; ` +
    `lease taken after ${Math.max(...takenMs).toFixed(0)} ms at most, delivering after ${p50.toFixed(0)} (p50), ${Math.max(...sorted).toFixed(0)} ms at most`
  );
}
