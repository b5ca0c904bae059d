/** What identifies an event in the table. */
export interface Identity {
  readonly seq: number;
  readonly xid: number;
}

/**
 * Settled events as runs of adjacent `seq`: every number from `seqFrom` to `seqTo` is a settled event. What is remembered
 * of them when they are gone; rows are removed by their exact ids (`removal.ts`). The bounds of the transaction ids keep
 * most rows apart that get the same numbers after the sequence was reset.
 */
export interface Run {
  readonly seqFrom: number;
  readonly seqTo: number;
  readonly xidFrom: number;
  readonly xidTo: number;
}

/** The same list where it is sorted already, as most are. */
export function sortedByNumber<T extends Identity>(events: readonly T[]): readonly T[] {
  return isSorted(events) ? events : events.toSorted((a, b) => a.seq - b.seq);
}

/** Sorted runs of these events, adjacent ones joined. Input in any order; doubles are harmless. */
export function toRuns(events: readonly Identity[]): Run[] {
  const sorted = sortedByNumber(events);
  const runs: Run[] = [];
  let last: { -readonly [Part in keyof Run]: Run[Part] } | undefined;
  for (const { seq, xid } of sorted) {
    if (last && seq <= last.seqTo + 1) {
      last.seqTo = seq;
      if (xid < last.xidFrom) last.xidFrom = xid;
      if (xid > last.xidTo) last.xidTo = xid;
    } else {
      last = { seqFrom: seq, seqTo: seq, xidFrom: xid, xidTo: xid };
      runs.push(last);
    }
  }
  return runs;
}

export function mergeRuns(...lists: readonly (readonly Run[])[]): Run[] {
  const filled = lists.filter((list) => list.length > 0);
  if (filled.length <= 1) return [...(filled[0] ?? [])];
  return joinSorted(filled.flat().toSorted((a, b) => a.seqFrom - b.seqFrom));
}

export function containsEvent(runs: readonly Run[], { seq, xid }: Identity): boolean {
  let low = 0;
  let high = runs.length - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const run = runs[middle] as Run;
    if (seq < run.seqFrom) high = middle - 1;
    else if (seq > run.seqTo) low = middle + 1;
    else return xid >= run.xidFrom && xid <= run.xidTo;
  }
  return false;
}

/** Four numbers a run, as the progress row stores them. */
export function flattenRuns(runs: readonly Run[]): number[] {
  return runs.flatMap((run) => [run.seqFrom, run.seqTo, run.xidFrom, run.xidTo]);
}

export function unflattenRuns(numbers: readonly number[]): Run[] {
  const runs: Run[] = [];
  for (let i = 0; i + 3 < numbers.length; i += 4) {
    const [seqFrom, seqTo, xidFrom, xidTo] = numbers.slice(i, i + 4) as [number, number, number, number];
    runs.push({ seqFrom, seqTo, xidFrom, xidTo });
  }
  return runs;
}

function isSorted(events: readonly Identity[]): boolean {
  for (let i = 1; i < events.length; i++) {
    if ((events[i] as Identity).seq < (events[i - 1] as Identity).seq) return false;
  }
  return true;
}

function joinSorted(runs: readonly Run[]): Run[] {
  const joined: Run[] = [];
  for (const run of runs) {
    const last = joined.at(-1);
    if (last && run.seqFrom <= last.seqTo + 1) {
      joined[joined.length - 1] = {
        seqFrom: last.seqFrom,
        seqTo: Math.max(last.seqTo, run.seqTo),
        xidFrom: Math.min(last.xidFrom, run.xidFrom),
        xidTo: Math.max(last.xidTo, run.xidTo),
      };
    } else joined.push(run);
  }
  return joined;
}
