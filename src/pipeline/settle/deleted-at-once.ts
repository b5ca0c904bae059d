/** So many events, in so many writes, over so long a time: a table that was emptied by hand does not do that. */
const MIN_EVENTS = 20;
const MIN_WRITES = 5;
const MIN_LASTING_MS = 10_000;
/** Of the events of a write; a clean-up job of the application may leave some. */
const MOST = 0.9;
/** What lay in the table for longer may have been deleted by anybody. */
const FRESH_MS = 60_000;

export interface WriteFindings {
  /** Settled by the write, and visible to it. */
  readonly events: number;
  /** Of these, rows that were no longer there. */
  readonly vanished: number;
  /** Since the commit of the newest of them. */
  readonly ageMs: number;
}

/**
 * Notices an application that deletes its rows in the transaction that inserts them, or right after: an insert-only
 * stream never shows that. Then the table is not the truth: what the slot loses, nobody can read again. Pure.
 */
export class DeletedAtOnce {
  private events = 0;
  private writes = 0;
  private sinceMs = 0;

  /** Whether it is certain now. */
  note({ events, vanished, ageMs }: WriteFindings, nowMs: number): boolean {
    if (events <= 0 || ageMs > FRESH_MS) return false;
    if (vanished < events * MOST) {
      this.events = this.writes = 0;
      return false;
    }
    if (this.writes === 0) this.sinceMs = nowMs;
    this.events += events;
    this.writes++;
    const lastingMs = nowMs - this.sinceMs;
    return this.events >= MIN_EVENTS && this.writes >= MIN_WRITES && lastingMs >= MIN_LASTING_MS;
  }
}
