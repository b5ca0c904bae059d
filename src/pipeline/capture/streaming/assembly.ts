import { RelayError } from '../../../errors/errors.ts';
import type { OutboxEvent, Transaction } from '../event.ts';
import { parseIdentity } from '../identity.ts';
import type { Batch } from '../source.ts';
import type { PgoutputHandler } from './decoder.ts';
import type { Relation, TupleRow } from './tuple-row.ts';
import { TupleStore } from './tuple-store.ts';

export interface OutboxIdentity {
  readonly schema: string;
  readonly table: string;
  readonly seqColumn: string;
  readonly xidColumn: string;
  /** Columns that a row must have besides. */
  readonly requiredColumns: readonly string[];
  /** Tables of the publication that are not the outbox: passed over. */
  readonly foreignOids: ReadonlySet<number>;
}

/**
 * Puts messages together to transactions and events. A transaction is handed on while it is still being received: the
 * server sends only committed ones, and one of a million events must not be held in memory.
 */
export class TransactionAssembly implements PgoutputHandler {
  private readonly outbox: OutboxIdentity;
  private readonly relations = new Map<number, Relation | undefined>();
  private readonly tuples = new TupleStore();
  private open: Transaction | undefined;
  private transactions: Transaction[] = [];
  private events: OutboxEvent[] = [];
  private heardLsn: bigint;
  private inTransaction = false;
  private beginXid = 0;
  private beginAtMs = 0;

  constructor(outbox: OutboxIdentity, startLsn: bigint) {
    this.outbox = outbox;
    this.heardLsn = startLsn;
  }

  /** The server said that it has sent everything below `lsn`; inside a transaction that means nothing yet. */
  heard(lsn: bigint): void {
    if (!this.inTransaction && lsn > this.heardLsn) this.heardLsn = lsn;
  }

  begin(xid: number, committedAtMs: number): void {
    this.inTransaction = true;
    this.beginXid = xid;
    this.beginAtMs = committedAtMs;
  }

  relation(relation: Relation): void {
    const { outbox } = this;
    if (outbox.foreignOids.has(relation.oid)) {
      this.relations.set(relation.oid, undefined);
      return;
    }
    const missing = [outbox.seqColumn, outbox.xidColumn, ...outbox.requiredColumns].filter(
      (column) => !relation.indexOf.has(column),
    );
    // A partition, or the table under another name, is the outbox all the same: passing it over would lose events.
    if (missing.length > 0) {
      throw new RelayError(
        'stop',
        'column-missing',
        `table ${relation.schema}.${relation.table} in the stream lacks column ${missing.join(', ')}`,
        {
          advice:
            'Restore the column, or set OUTBOX_*_COLUMN to its new name; the publication must hold the outbox alone.',
        },
      );
    }
    this.relations.set(relation.oid, relation);
  }

  insert(relationOid: number, buffer: Buffer, start: number, end: number, leftOutBytes: number): void {
    const relation = this.relations.get(relationOid);
    if (!relation) {
      if (this.relations.has(relationOid)) return;
      throw new TypeError(`pgoutput: insert into a relation that was not announced: ${relationOid}`);
    }
    const row = this.tuples.add(relation, buffer, start, end);
    const transaction = (this.open ??= this.openTransaction());
    transaction.outstanding++;
    const left = leftOutBytes > 0 ? { leftInTableBytes: leftOutBytes } : {};
    this.events.push({
      ...left,
      row,
      seq: readIdentity(row, this.outbox.seqColumn),
      xid: readIdentity(row, this.outbox.xidColumn),
      transaction,
      sizeBytes: end - start,
    });
  }

  commit(endLsn: bigint): void {
    this.inTransaction = false;
    if (this.open) {
      this.open.endLsn = endLsn;
      this.open = undefined;
    }
    this.heard(endLsn);
  }

  /** What came since the last call. */
  take(): Batch {
    const batch = { transactions: this.transactions, events: this.events, heardLsn: this.heardLsn };
    this.transactions = [];
    this.events = [];
    return batch;
  }

  /** Only a transaction that brings an event is opened: PostgreSQL 14 also sends those that touch other tables. */
  private openTransaction(): Transaction {
    const transaction: Transaction = {
      xid: this.beginXid,
      committedAtMs: this.beginAtMs,
      endLsn: undefined,
      outstanding: 0,
    };
    this.transactions.push(transaction);
    return transaction;
  }
}

function readIdentity(row: TupleRow, column: string): number {
  const value = row.digits(column);
  return Number.isNaN(value) ? parseIdentity(column, row.text(column)) : value;
}
