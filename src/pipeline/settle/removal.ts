import { sortedByNumber, type Identity } from './settled-runs.ts';

/** What tells a statement which rows to remove: exactly these events, however numbers were given out. */
export interface Removal {
  /** First and last number of each run of adjacent numbers, sorted; of scattered events each is a run of its own. */
  readonly firsts: readonly number[];
  readonly lasts: readonly number[];
  /** Where the transaction ids of each run begin among `xids`, from 1. */
  readonly offsets: readonly number[];
  /** One for each number. */
  readonly xids: readonly number[];
  /** So many other numbers lie between them that it costs less to look each of them up. */
  readonly scattered: boolean;
}

/** A look-up in the index costs about as much as reading so many entries one after the other. */
const LOOK_UP_ENTRIES = 10;

/**
 * Events by number, each number once. `again`: the same number of another transaction, after the sequence was set back;
 * one statement can't tell both. Doubles are left out.
 */
export function byNumber<T extends Identity>(events: readonly T[]): { once: readonly T[]; again: T[] } {
  const sorted = sortedByNumber(events);
  const again: T[] = [];
  if (!hasRepeats(sorted)) return { once: sorted, again };
  const once: T[] = [];
  for (const event of sorted) {
    const before = once.at(-1);
    if (before?.seq !== event.seq) once.push(event);
    else if (before.xid !== event.xid) again.push(event);
  }
  return { once, again };
}

/** All of them, in pieces as `byNumber` gives them, of at most so many events. */
export function* inPortions<T extends Identity>(events: readonly T[], max: number): Generator<readonly T[]> {
  for (let from = 0; from < events.length; from += max) {
    let left: readonly T[] = events.slice(from, from + max);
    while (left.length > 0) {
      const { once, again } = byNumber(left);
      yield once;
      left = again;
    }
  }
}

/** Of events as `byNumber` gives them. `numbered`: neighbours in number stand beside each other in an index. Pure. */
export function toRemoval(events: readonly Identity[], numbered = true): Removal {
  const width = (events.at(-1)?.seq ?? 0) - (events[0]?.seq ?? 0) + 1;
  const scattered = !numbered || width > LOOK_UP_ENTRIES * Math.max(1, events.length);
  const firsts: number[] = [];
  const lasts: number[] = [];
  const offsets: number[] = [];
  const xids: number[] = [];
  for (const { seq, xid } of events) {
    if (scattered || lasts.at(-1) !== seq - 1) {
      firsts.push(seq);
      lasts.push(seq);
      offsets.push(xids.length + 1);
    } else lasts[lasts.length - 1] = seq;
    xids.push(xid);
  }
  return { firsts, lasts, offsets, xids, scattered };
}

function hasRepeats(sorted: readonly Identity[]): boolean {
  for (let i = 1; i < sorted.length; i++) {
    if ((sorted[i] as Identity).seq === (sorted[i - 1] as Identity).seq) return true;
  }
  return false;
}
