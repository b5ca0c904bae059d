import { KINDS, type FaultKind } from './schedule.ts';

/** Everything is well again; longer than the longest deadline of the relay and a back-off at its cap. */
export const DRAIN_TIMEOUT_MS = 75_000;
/** A third more than a relay took whose window of 10,000 events was full while the broker was away. */
export const MAX_RSS_BYTES = 320 * 1024 ** 2;
const BATCH_EVENTS = 500;
/** Up to the next whole segment a slot keeps more than its limit says. */
const SEGMENT_BYTES = 16 * 1024 ** 2;

/** P4: each of these faults that repeats anything repeats at most the window of what was in flight and one batch. */
export function duplicatesAllowed(made: readonly FaultKind[], windowEvents: number): number {
  return made.filter((kind) => KINDS[kind].repeats).length * (windowEvents + BATCH_EVENTS);
}

/** `limit`: of the relay, in MiB. */
export function retainedAllowed(limitMib: number): number {
  return limitMib * 1024 ** 2 + SEGMENT_BYTES;
}
