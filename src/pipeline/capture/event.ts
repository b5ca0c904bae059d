import type { Bytes } from './byte-range.ts';

/** One row of the outbox table. Values are exactly the database's text form; nothing is parsed and printed again. */
export interface Row {
  /** Column names, in table order. */
  readonly columns: readonly string[];
  /**
   * The value's text form; `null` for SQL NULL; `undefined` when the table has no such column. `like`: a text that it
   * probably equals; that string itself is then returned, which costs a fifth of a new one.
   */
  text(column: string, like?: string): string | null | undefined;
  /** The value as bytes: UTF-8 of the text form, `bytea` decoded. */
  bytes(column: string): Bytes | null | undefined;
  /** OID of the column's type; of a domain, of the type below it. */
  typeOid(column: string): number | undefined;
  /**
   * Moves the row out of memory that it shares with others and that would be kept as long as itself, for one that waits
   * while the others leave. Gives `body`, a value of it, from where it is now. Absent: it shares nothing.
   */
  own?(body: Bytes | null): Bytes | null;
}

/** A committed transaction that brought events. `capture` creates it, the watermark counts it down. */
export interface Transaction {
  /** Of a streamed one: the low 32 bits of its id. `undefined`: the row was read from the table, so it is visible. */
  readonly xid: number | undefined;
  /** Commit time on the database's clock, milliseconds since the epoch (fractions are microseconds). */
  readonly committedAtMs: number;
  /** End LSN of the commit record; unknown until the COMMIT message of a large transaction has arrived. */
  endLsn: bigint | undefined;
  /** Events received and not yet settled. */
  outstanding: number;
}

/**
 * One inserted outbox row on its way to the broker.
 * `seq` and `xid` are its identity (limits: both below 2^53, checked when decoded).
 */
export interface OutboxEvent {
  readonly row: Row;
  readonly seq: number;
  readonly xid: number;
  readonly transaction: Transaction;
  /** Bytes of the row's values in text form, UTF-8, as far as they are here: on the wire, and in memory, hardly more. */
  readonly sizeBytes: number;
  /** Bytes of the values that were too large to be fetched: NULL here, and complete in the table. */
  readonly leftInTableBytes?: number;
}

/** Bytes of the whole row in text form. */
export function rowBytes({ sizeBytes, leftInTableBytes = 0 }: OutboxEvent): number {
  return sizeBytes + leftInTableBytes;
}
