import type { OutboxEvent, Transaction } from '../capture/event.ts';

/**
 * Which position may be acknowledged: completions in any order in, the end of the contiguous settled prefix out.
 *
 * Invariant: acknowledged ≤ settled ≤ received, all of them only grow, and a position is always the end of a commit or
 * one that the server itself named while nothing was outstanding. Pure: no clock, no socket.
 */
export class Watermark {
  private readonly queue: Transaction[] = [];
  private head = 0;
  private begun = 0;
  private done = 0;
  private settledLsn: bigint;
  private heardLsn: bigint;

  constructor(startLsn: bigint) {
    this.settledLsn = startLsn;
    this.heardLsn = startLsn;
  }

  /** A transaction arrived; in commit order, before any of its events is settled. */
  begin(transaction: Transaction): void {
    this.queue.push(transaction);
    this.begun++;
  }

  /** The source has nothing between what it brought and here. */
  heard(lsn: bigint): void {
    if (lsn > this.heardLsn) this.heardLsn = lsn;
  }

  /** One event of the transaction is durable or parked. */
  settle(event: OutboxEvent): void {
    if (event.transaction.outstanding <= 0) throw new RangeError('event settled twice');
    event.transaction.outstanding--;
  }

  /** Moves over every transaction that is complete, and returns the position up to which all is settled. */
  advance(): bigint {
    for (;;) {
      const transaction = this.queue[this.head];
      if (!transaction) break;
      // Without its COMMIT there is no position, and more of its events may follow.
      if (transaction.endLsn === undefined || transaction.outstanding > 0) return this.compact();
      if (transaction.endLsn > this.settledLsn) this.settledLsn = transaction.endLsn;
      this.head++;
      this.done++;
    }
    if (this.heardLsn > this.settledLsn) this.settledLsn = this.heardLsn;
    return this.compact();
  }

  get settled(): bigint {
    return this.settledLsn;
  }

  /** The oldest transaction with something unsettled; its commit time is what lag is measured from. */
  get oldest(): Transaction | undefined {
    return this.queue[this.head];
  }

  /** Transactions begun so far; with `completed` a clock of its own that tells when knowledge may be forgotten. */
  get received(): number {
    return this.begun;
  }

  get completed(): number {
    return this.done;
  }

  /** Dropping the dead front piece by piece keeps `advance` at constant cost an event. */
  private compact(): bigint {
    if (this.head > 1024 && this.head * 2 > this.queue.length) {
      this.queue.splice(0, this.head);
      this.head = 0;
    }
    return this.settledLsn;
  }
}
