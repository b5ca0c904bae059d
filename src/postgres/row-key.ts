import type { OutboxConfig } from '../config/config.ts';
import { quoteIdentifier } from './identifier.ts';
import type { OutboxTable } from './outbox-table.ts';

/** How a row is told from all others, as SQL. */
export interface RowKey {
  /** Its number, a bigint below 2^53. */
  readonly seq: string;
  /** What else makes it this row and no other of that number, an xid8 below 2^53. */
  readonly xid: string;
  /** The order in which undelivered rows are delivered. */
  readonly order: string;
  /** Condition on an expression of type bigint[]: the row's number is in it. By an index, or by the place itself. */
  readonly among: (numbers: string) => string;
}

/** Whether rows bring a number and a transaction id of their own; otherwise the table can only be polled. */
export function isNumbered({ columns }: OutboxConfig, table: Pick<OutboxTable, 'columns'>): boolean {
  return table.columns.has(columns.seq) && table.columns.has(columns.xid);
}

/** In statements that name the table `o`. */
export function rowKey(outbox: OutboxConfig): RowKey {
  return outbox.numbered ? ofColumns(outbox) : OF_PLACE;
}

function ofColumns({ columns }: OutboxConfig): RowKey {
  const seq = `o.${quoteIdentifier(columns.seq)}`;
  return {
    seq,
    xid: `o.${quoteIdentifier(columns.xid)}`,
    order: seq,
    among: (numbers) => `${seq} = any(${numbers})`,
  };
}

/** Rows on a page of the file: offsets are below it. */
const PAGE = 65_536;
/** 21 bits of the file's number and 32 of a transaction id make 53. */
const FILES = 2_097_152;
const TRANSACTIONS = 4_294_967_296;

/**
 * A table without these columns, such as Debezium's default one. The row's place in the file is its number; that another
 * row may come to stand there, once the first is gone, is told by the transaction that wrote it, and by the file, which
 * changes when the table is rewritten (VACUUM FULL). An update of the row makes it another one: a duplicate, never a loss.
 * In the order of transaction ids, which transactions get at their first write: that of commit where writers of one key
 * exclude each other before they write anything. Inside a transaction in that of its statements: a page that has room again
 * takes later rows before earlier ones.
 */
const OF_PLACE: RowKey = {
  seq: `((o.ctid::text::point)[0]::bigint * ${PAGE} + (o.ctid::text::point)[1]::bigint)`,
  xid: `((pg_relation_filenode(o.tableoid)::bigint % ${FILES}) * ${TRANSACTIONS} + o.xmin::text::bigint)::text::xid8`,
  order: 'age(o.xmin) desc, o.cmin::text::bigint, o.ctid',
  among: (numbers) =>
    `o.ctid = any(array(select format('(%s,%s)', n / ${PAGE}, n % ${PAGE})::tid from unnest(${numbers}) n))`,
};
