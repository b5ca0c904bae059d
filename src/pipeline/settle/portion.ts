import type { Settled } from './settlement.ts';

/** Of rows that go into the dead letters, in one statement: all of their texts are in memory several times over. */
const MAX_PARKED_BYTES = 4 * 1_048_576;

/** Most events in one transaction of the clean-up: short enough never to stand in a writer's way. */
export const MAX_EVENTS_PER_WRITE = 5_000;

/** How many of the first of these are written in one statement, at least one. Pure. */
export function portion(settled: readonly Settled[], maxEvents: number): number {
  let parkedBytes = 0;
  const most = Math.min(maxEvents, settled.length);
  for (let count = 0; count < most; count++) {
    const { event, parked, parkedInDatabase } = settled[count] as Settled;
    if (!parked || parkedInDatabase) continue;
    parkedBytes += event.sizeBytes;
    if (parkedBytes > MAX_PARKED_BYTES && count > 0) return count;
  }
  return most;
}

/** All of them, in such portions. */
export function* inWrites(settled: readonly Settled[], maxEvents: number): Generator<readonly Settled[]> {
  for (let rest = settled; rest.length > 0;) {
    const count = portion(rest, maxEvents);
    yield rest.slice(0, count);
    rest = rest.slice(count);
  }
}
