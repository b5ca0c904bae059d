import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { readColumns } from '../../../postgres/columns.ts';
import { qualified, quoteIdentifier } from '../../../postgres/identifier.ts';
import { isUndelivered } from '../../../postgres/undelivered.ts';
import type { OutboxEvent, Transaction } from '../event.ts';
import { parseIdentity } from '../identity.ts';
import type { Batch } from '../source.ts';
import type { Numbering } from './numbering.ts';
import { isTooLargeToPrint, keptValues, measureEach, sizeExpression, UNPRINTABLE_BYTES } from './row-size.ts';
import { TableRow, type TableShape } from './table-row.ts';

/** Which rows are meant. */
export type WantedRows =
  /** What a snapshot sees, without what an older one (`horizon`) saw, which was delivered before: a set that can't grow. */
  { readonly snapshot: string; readonly horizon: string | undefined } | { readonly seqs: readonly number[] };

/** Below every `seq`. */
export const BEFORE_ALL = -1;

export interface PageRow {
  readonly seq: number;
  /** Bytes of the row's text form, without those of fixed length. */
  readonly bytes: number;
}

export interface LookRequest {
  readonly limit: number;
  /** undefined: from the beginning of the table. */
  readonly from: number | undefined;
  readonly numbering: Numbering | undefined;
}

export interface LookAnswer {
  readonly seqs: readonly number[];
  /** Last number that the sequence has given out. */
  readonly drawn: number | undefined;
  /** On the server, without waiting for other statements of the connection. */
  readonly tookMs: number;
}

/** Rows in one page, and bytes of payload in one fetch; an event larger than that is fetched alone. */
export const PAGE_ROWS = 2_000;
const FETCH_BYTES = 4 * 1_048_576;

/**
 * Reads undelivered rows by `seq`, a page of numbers and sizes first, then their values in bounded fetches: a page of
 * large rows must not be held in memory.
 */
export class TableReader {
  private readonly config: Config;
  private readonly client: Client;
  private readonly table: string;
  private shape: TableShape | undefined;

  constructor(config: Config, client: Client) {
    this.config = config;
    this.client = client;
    this.table = qualified(config.outbox.schema, config.outbox.table);
  }

  /** The first `PAGE_ROWS` of them with a greater `seq`; fewer: there are no more. */
  async nextPage(wanted: WantedRows, after: number): Promise<PageRow[]> {
    try {
      this.shape ??= await this.readShape();
      return await this.readPage(wanted, after, sizeExpression(this.shape));
    } catch (error) {
      if (!isTooLargeToPrint(error)) throw error;
      const page = await this.readPage(wanted, after, '0');
      return await measureEach(
        page.map(({ seq }) => seq),
        async (seqs) => await this.readPage({ seqs }, after, sizeExpression(this.shape as TableShape)),
        (seq) => ({ seq, bytes: UNPRINTABLE_BYTES }),
      );
    }
  }

  private async readPage(wanted: WantedRows, after: number, size: string): Promise<PageRow[]> {
    const { client } = this;
    const { outbox, cleanup } = this.config;
    const { columns } = outbox;
    const seq = quoteIdentifier(columns.seq);
    const { condition, values } = whereOf(wanted, seq, quoteIdentifier(columns.xid));
    const { rows } = await client.query<{ seq: string; bytes: string | null }>(
      `select ${seq} as seq, ${size} as bytes
         from ${this.table}
        where ${seq} > $1 and ${isUndelivered(outbox, cleanup)} ${condition} order by ${seq} limit $2`,
      [after, PAGE_ROWS, ...values],
    );
    return rows.map((row) => ({ seq: parseIdentity(columns.seq, row.seq), bytes: Number(row.bytes ?? 0) }));
  }

  /**
   * Numbers of the first `limit` rows that are undelivered now, of one snapshot, from the number `from` on. From the
   * beginning there is no condition: a row without a valid number must be told, not left out.
   */
  async undelivered({ limit, from, numbering }: LookRequest): Promise<LookAnswer> {
    const { outbox, cleanup } = this.config;
    const { columns } = outbox;
    const seq = quoteIdentifier(columns.seq);
    const beyond = from === undefined ? '' : `and ${seq} >= $2`;
    const { rows } = await this.client.query<{ seqs: string; drawn: string | null; took_ms: string }>(
      `select array_to_string(array(
                select ${seq} from ${this.table} where ${isUndelivered(outbox, cleanup)} ${beyond} order by ${seq} limit $1), ',', 'NULL') as seqs,
              ${numbering ? drawnFrom(numbering) : 'null'} as drawn,
              extract(epoch from clock_timestamp() - statement_timestamp()) * 1000 as took_ms`,
      from === undefined ? [limit] : [limit, from],
    );
    const [{ seqs, drawn, took_ms: tookMs }] = rows as [(typeof rows)[number]];
    return {
      seqs: seqs === '' ? [] : seqs.split(',').map((number) => parseIdentity(columns.seq, number)),
      drawn: drawn === null ? undefined : Number(drawn),
      tookMs: Number(tookMs),
    };
  }

  /** What `nextPage` tells, of these rows, as far as they are still there. */
  async sizes(seqs: readonly number[]): Promise<PageRow[]> {
    return seqs.length === 0 ? [] : await this.nextPage({ seqs }, BEFORE_ALL);
  }

  private async readShape(): Promise<TableShape> {
    const columns = await readColumns(this.client, this.table);
    return {
      columns: columns.map(({ name }) => name),
      typeOids: new Map(columns.map(({ name, oid }) => [name, oid])),
      fixed: new Set(columns.filter(({ fixed }) => fixed).map(({ name }) => name)),
    };
  }

  /** The rows of a page, in batches of bounded size, each row once. Ends early when the signal aborts. */
  async *fetch(page: readonly PageRow[], signal: AbortSignal): AsyncGenerator<Batch> {
    for (let from = 0; from < page.length && !signal.aborted;) {
      const to = endOfFetch(page, from, this.config.maxEventBytes);
      this.shape ??= await this.readShape();
      const events = await this.fetchRows(this.shape, page.slice(from, to));
      from = to;
      yield toBatch(events);
    }
  }

  private async fetchRows(shape: TableShape, page: readonly PageRow[]): Promise<OutboxEvent[]> {
    const { config, client } = this;
    const { columns } = config.outbox;
    const seq = quoteIdentifier(columns.seq);
    // An oversized row stands alone in its page; it stays in the database, where it is parked.
    const leftBytes = (page[0]?.bytes ?? 0) > config.maxEventBytes ? (page[0]?.bytes ?? 0) : 0;
    const wanted = leftBytes > 0 ? keptValues(shape) : shape.columns.map(quoteIdentifier);
    const { rows } = await client.query<Record<string, string | null>>(
      `select ${wanted.join(', ')}, extract(epoch from ${createdAt(shape, columns.createdAt)}) * 1000 as relay_committed_ms
         from ${this.table} where ${seq} = any($1::bigint[]) order by ${seq}`,
      [page.map((row) => row.seq)],
    );
    return rows.map((values) => toEvent(shape, values, columns, leftBytes));
  }
}

/** `last_value` of a sequence that nobody has drawn from is the number that comes next. */
function drawnFrom({ sequence }: Numbering): string {
  return `(select case when is_called then last_value else last_value - 1 end from ${sequence})`;
}

interface Where {
  readonly condition: string;
  readonly values: readonly unknown[];
}

function whereOf(wanted: WantedRows, seq: string, xid: string): Where {
  if ('seqs' in wanted) return { condition: `and ${seq} = any($3::bigint[])`, values: [wanted.seqs] };
  // One that no transaction of this server can have yet came with a restored dump, and only this pass will deliver it.
  const restored = `${xid} >= pg_snapshot_xmax(pg_current_snapshot())`;
  return {
    condition: `and (pg_visible_in_snapshot(${xid}, $3::pg_snapshot) or ${restored})
          and ($4::pg_snapshot is null or not pg_visible_in_snapshot(${xid}, $4::pg_snapshot))`,
    values: [wanted.snapshot, wanted.horizon ?? null],
  };
}

function createdAt(shape: TableShape, column: string): string {
  return shape.typeOids.has(column) ? quoteIdentifier(column) : 'clock_timestamp()';
}

/** An oversized row goes alone: what is left out of its fetch must not be left out of its neighbours'. */
function endOfFetch(page: readonly PageRow[], from: number, maxEventBytes: number): number {
  let bytes = page[from]?.bytes ?? 0;
  let to = from + 1;
  if (bytes > maxEventBytes) return to;
  while (to < page.length) {
    const next = page[to]?.bytes ?? 0;
    if (next > maxEventBytes || bytes + next > FETCH_BYTES) break;
    bytes += next;
    to++;
  }
  return to;
}

/** Each row is a transaction of its own whose position is its `seq`, so that the same books serve both sources. */
function toEvent(
  shape: TableShape,
  values: Readonly<Record<string, string | null>>,
  columns: Config['outbox']['columns'],
  leftBytes: number,
): OutboxEvent {
  const row = new TableRow(shape, values);
  const seq = parseIdentity(columns.seq, row.text(columns.seq));
  const xid = parseIdentity(columns.xid, row.text(columns.xid));
  const transaction: Transaction = {
    xid: undefined,
    committedAtMs: Number(values['relay_committed_ms'] ?? 0),
    endLsn: BigInt(seq),
    outstanding: 1,
  };
  const left = leftBytes > 0 ? { leftInTableBytes: leftBytes } : {};
  return { ...left, row, seq, xid, transaction, sizeBytes: row.sizeBytes };
}

function toBatch(events: readonly OutboxEvent[]): Batch {
  return { events, transactions: events.map(({ transaction }) => transaction), heardLsn: 0n };
}
