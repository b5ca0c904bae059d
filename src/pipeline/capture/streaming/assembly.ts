import { RelayError } from '../../../errors/errors.ts';
import type { OutboxEvent, Transaction } from '../event.ts';
import { parseIdentity } from '../identity.ts';
import type { Batch } from '../source.ts';
import type { PgoutputHandler } from './decoder.ts';
import { baseTypeOid, withBaseTypes, type Relation, type TupleRow } from './tuple-row.ts';
import { TupleStore } from './tuple-store.ts';

export interface OutboxIdentity {
  readonly schema: string;
  readonly table: string;
  readonly seqColumn: string;
  readonly xidColumn: string;
  /** Columns that a row must have besides. */
  readonly requiredColumns: readonly string[];
  /** The table and its partitions, as the catalog has them now. */
  readonly oids: ReadonlySet<number>;
  /** What else is in the publication now. */
  readonly others: ReadonlySet<number>;
  /** The publication holds the outbox and nothing else. */
  readonly alone: boolean;
  /** What was asked for and is in no catalog; kept over sessions, added to here. */
  readonly strangers: Set<number>;
}

/**
 * Puts messages together to transactions and events. A transaction is handed on while it is still being received: the
 * server sends only committed ones, and one of a million events must not be held in memory.
 */
export class TransactionAssembly implements PgoutputHandler {
  private readonly outbox: OutboxIdentity;
  private readonly relations = new Map<number, Relation | undefined>();
  private readonly tuples = new TupleStore();
  private readonly baseOids = new Map<number, number>();
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

  type(oid: number, schema: string, name: string): void {
    const base = baseTypeOid(schema, name);
    if (base === undefined) this.baseOids.delete(oid);
    else this.baseOids.set(oid, base);
  }

  relation(relation: Relation): void {
    const { outbox } = this;
    const missing = [outbox.seqColumn, outbox.xidColumn, ...outbox.requiredColumns].filter(
      (column) => !relation.indexOf.has(column),
    );
    const ours = this.isOutbox(relation, missing.length === 0);
    if (ours && missing.length > 0) {
      throw new RelayError(
        'stop',
        'column-missing',
        `table ${relation.schema}.${relation.table} in the stream lacks column ${missing.join(', ')}`,
        {
          advice: 'Restore the column, or set OUTBOX_*_COLUMN or the template that names it to its new name.',
        },
      );
    }
    this.relations.set(relation.oid, ours ? withBaseTypes(relation, this.baseOids) : undefined);
  }

  /**
   * The stream speaks of history, the catalog of today: the outbox may have been renamed or made again since, a partition
   * detached, another table dropped. Passing over one of ours would lose events; taking another's would invent some.
   */
  private isOutbox({ schema, table, oid }: Relation, complete: boolean): boolean {
    const { outbox } = this;
    if (schema === outbox.schema && table === outbox.table) return true;
    if (outbox.oids.has(oid)) return true;
    if (!complete || outbox.others.has(oid) || outbox.strangers.has(oid)) return false;
    // It can only be a partition of before, as long as nothing else is published.
    if (outbox.alone) return true;
    // A partition that was made since the catalog was read, or somebody's table: the next session knows.
    outbox.strangers.add(oid);
    throw new RelayError('retry', 'relation-unknown', `what is ${schema}.${table} in the stream?`, {
      advice: 'The relay looks it up and goes on by itself.',
    });
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
