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
  /** Columns without which a row is parked. */
  readonly addressColumns: readonly string[];
  /** The table and its partitions, as the catalog has them now. */
  readonly oids: ReadonlySet<number>;
  /** What else is in the publication now. */
  readonly others: ReadonlySet<number>;
  /** The publication holds the outbox and nothing else. */
  readonly alone: boolean;
  /** By oid, what a session was ended for once, to look into the catalog; kept over sessions, written here. */
  readonly asked: Map<string, string>;
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
    const lacks = (columns: readonly string[]): string[] =>
      columns.filter((column) => !relation.indexOf.has(column));
    const missing = lacks([outbox.seqColumn, outbox.xidColumn, ...outbox.requiredColumns]);
    const ours = this.isOutbox(relation, missing.length === 0);
    if (ours) {
      if (missing.length > 0) throw columnMissing('stop', relation, missing);
      this.checkAddress(relation, lacks(outbox.addressColumns));
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
    if (outbox.oids.has(oid)) {
      outbox.asked.delete(`whose ${oid}`);
      return true;
    }
    if (!complete || outbox.others.has(oid)) return false;
    // A partition or somebody's table that came since the catalog was read: the next session knows.
    this.askOnce(`whose ${oid}`, '', () => relationUnknown(`${schema}.${table}`));
    // The catalog knows it no more. It can only have been a partition, as long as nothing else is published.
    return outbox.alone;
  }

  /**
   * The column was renamed or dropped since the session began: then the next one waits for a person. Or the catalog has it
   * still, because these rows were written before it was added: they are parked, and it would be for ever to wait.
   */
  private checkAddress(relation: Relation, missing: readonly string[]): void {
    const question = `columns of ${relation.oid}`;
    if (missing.length === 0) this.outbox.asked.delete(question);
    else this.askOnce(question, missing.join(), () => columnMissing('retry', relation, missing));
  }

  /** `details`: with others it is another question. */
  private askOnce(question: string, details: string, error: () => RelayError): void {
    const { asked } = this.outbox;
    if (asked.get(question) === details) return;
    asked.set(question, details);
    throw error();
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

function columnMissing(
  consequence: 'stop' | 'retry',
  { schema, table }: Relation,
  missing: readonly string[],
): RelayError {
  const message = `table ${schema}.${table} in the stream lacks column ${missing.join(', ')}`;
  return new RelayError(consequence, 'column-missing', message, {
    advice: 'Restore the column, or set OUTBOX_*_COLUMN or the template that names it to its new name.',
  });
}

function relationUnknown(name: string): RelayError {
  return new RelayError('retry', 'relation-unknown', `what is ${name} in the stream?`, {
    advice: 'The relay looks it up and goes on by itself.',
  });
}
