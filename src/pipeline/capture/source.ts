import type { OutboxEvent, Transaction } from './event.ts';

/** What one read brought. Transactions are listed in commit order, each once, in the batch that brings its first event. */
export interface Batch {
  readonly transactions: readonly Transaction[];
  readonly events: readonly OutboxEvent[];
  /** Up to here the source has nothing more to bring; counts only once everything received is settled. */
  readonly heardLsn: bigint;
}

/**
 * Where events come from. Positions are the source's own, ordered bigints: commit end LSNs when streaming, `seq` when
 * reading the table. Batches go down, acknowledged positions come back up.
 */
export interface Source {
  /** Ends when the source is exhausted or the signal aborts; throws what `errors/policy.ts` can classify. */
  batches(signal: AbortSignal): AsyncIterable<Batch>;
  /** Everything at or below is settled, and the progress row says so. Monotone. */
  acknowledge(position: bigint): void;
}
