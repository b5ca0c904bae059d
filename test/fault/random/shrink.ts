import type { PlannedFault, Schedule } from './schedule.ts';

/** Schedules with one thing less, the most promising first. */
export function smaller(schedule: Schedule): Schedule[] {
  const { faults, load, relays } = schedule;
  const without = (left: PlannedFault): Schedule => ({
    ...schedule,
    faults: faults.filter((fault) => fault !== left),
  });
  const calm = { ...load, bursts: [], long: [], big: [], crowds: [], poison: [], nowhere: [] };
  const { bursts, long, big, crowds, poison, nowhere } = load;
  const busy = [bursts, long, big, crowds, poison, nowhere].some((list) => list.length > 0);
  return [
    ...(faults.length > 1 ? faults.map(without) : []),
    ...(busy ? [{ ...schedule, load: calm }] : []),
    ...(relays > 1 ? [{ ...schedule, relays: relays - 1 }] : []),
  ];
}

/**
 * The smallest schedule found that still fails, with at most `attempts` rounds. A race may hide: one that did not fail is
 * only less likely, so what is left out stays out and what is kept may be more than it needs.
 */
export async function shrink(
  schedule: Schedule,
  fails: (schedule: Schedule) => Promise<boolean>,
  attempts: number,
): Promise<Schedule> {
  let smallest = schedule;
  let left = attempts;
  for (;;) {
    let found: Schedule | undefined;
    for (const candidate of smaller(smallest)) {
      if (left-- <= 0) return smallest;
      if (!(await fails(candidate))) continue;
      found = candidate;
      break;
    }
    if (found === undefined) return smallest;
    smallest = found;
  }
}
