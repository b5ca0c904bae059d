import type { LogEnds } from '../../postgres/log-position.ts';

interface Waiting<T> {
  readonly item: T;
  /** Its commit is not behind this position; unknown until the first look after it. */
  end: bigint | undefined;
  looks: number;
}

/** Writers that commit at all carry the log to the disk sooner; without them a flush of our own delays nobody. */
const MAX_LOOKS = 6;
/** After nobody else has flushed, so many writes do it themselves before the others are relied on again. */
const OWN_FLUSHES = 20;

/**
 * Lets the writers' commits carry ours to the disk. Every commit that waits for the disk makes theirs wait longer:
 * measured at 1,000 inserts/s, our own flushes added three quarters to the median time of an insert.
 *
 * Such a write counts for nothing until it is known to be on disk: until then nothing is acknowledged, and a crash of the
 * server finds it among what is to be written again. Each write looks for the ones before it, so that no question is
 * asked while there is something to write. Pure.
 */
export class SharedFlush<T> {
  /** Nobody knows yet who else commits. */
  private ownLeft = OWN_FLUSHES;
  private waiting: Waiting<T>[] = [];

  /** Whether the next write may leave the flush to others. Counts. */
  next(): boolean {
    if (this.ownLeft === 0) return !this.isOverdue;
    this.ownLeft--;
    return false;
  }

  get isWaiting(): boolean {
    return this.waiting.length > 0;
  }

  /** Looked for in vain: nobody else commits. */
  get isOverdue(): boolean {
    return (this.waiting[0]?.looks ?? 0) >= MAX_LOOKS;
  }

  /** Committed, and left to others. */
  add(item: T): void {
    this.waiting.push({ item, end: undefined, looks: 0 });
  }

  /** A look at the log, begun after everything added was committed. Returns what is on disk now, in order. */
  observe({ inserted, flushed }: LogEnds): T[] {
    for (const each of this.waiting) {
      each.end ??= inserted;
      each.looks++;
    }
    const left = this.waiting.findIndex(({ end }) => end === undefined || end > flushed);
    return this.take(left < 0 ? this.waiting.length : left);
  }

  /** Something was committed and flushed behind all of it. */
  flushed(): T[] {
    if (this.isOverdue) this.ownLeft = OWN_FLUSHES;
    return this.take(this.waiting.length);
  }

  private take(count: number): T[] {
    return this.waiting.splice(0, count).map(({ item }) => item);
  }
}
