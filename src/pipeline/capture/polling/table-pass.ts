import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { faultPoint } from '../../../lifecycle/fault-point.ts';
import { qualified, quoteIdentifier } from '../../../postgres/identifier.ts';
import type { OutboxEvent, Transaction } from '../event.ts';
import { parseIdentity } from '../identity.ts';
import type { Batch, Source } from '../source.ts';
import { TableRow, type TableShape } from './table-row.ts';

export interface TablePassOptions {
  readonly config: Config;
  readonly client: Client;
  readonly rows: WantedRows;
  /** Delivered up to here by an earlier run of the same pass. */
  readonly afterSeq: number;
}

/**
 * What a snapshot sees, without what an older one (`horizon`) saw, which was delivered before; or rows by their number.
 * A set that can't grow, either way.
 */
export type WantedRows =
  | { readonly snapshot: string; readonly horizon: string | undefined }
  | { readonly seqs: readonly number[] };

/** Below every `seq`. */
export const BEFORE_ALL = -1;

interface PageRow {
  readonly seq: number;
  /** Bytes of the payload's text form. */
  readonly bytes: number;
}

/** Rows in one page, and bytes of payload in one fetch; an event larger than that is fetched alone. */
const PAGE_ROWS = 2_000;
const FETCH_BYTES = 4 * 1_048_576;

/**
 * Delivers what a fixed snapshot sees, once, by `seq`. The set can't change any more, so that a cursor over `seq` is
 * exact here, which it never is over a table that is being written.
 *
 * Sizes are asked for before payloads are fetched: a page of large rows must not be held in memory.
 */
export class TablePass implements Source {
  private readonly options: TablePassOptions;
  private readonly table: string;

  constructor(options: TablePassOptions) {
    this.options = options;
    this.table = qualified(options.config.outbox.schema, options.config.outbox.table);
  }

  async *batches(signal: AbortSignal): AsyncGenerator<Batch> {
    let after = this.options.afterSeq;
    let shape: TableShape | undefined;
    while (!signal.aborted) {
      const page = await this.nextPage(after);
      for (let from = 0; from < page.length && !signal.aborted;) {
        const to = endOfFetch(page, from, this.options.config.maxEventBytes);
        shape ??= await this.readShape();
        const events = await this.fetch(shape, page.slice(from, to));
        from = to;
        faultPoint('during-table-pass');
        yield toBatch(events);
      }
      const last = page.at(-1);
      if (!last) return;
      after = last.seq;
    }
  }

  acknowledge(): void {
    // The progress row is the acknowledgement.
  }

  private async nextPage(after: number): Promise<PageRow[]> {
    const { config, client, rows: wanted } = this.options;
    const { columns } = config.outbox;
    const seq = quoteIdentifier(columns.seq);
    const undelivered =
      config.cleanup === 'mark' ? `and ${quoteIdentifier(columns.deliveredAt)} is null` : '';
    const condition = 'seqs' in wanted ? bySeq(seq) : bySnapshot(quoteIdentifier(columns.xid));
    const values = 'seqs' in wanted ? [wanted.seqs] : [wanted.snapshot, wanted.horizon ?? null];
    const { rows } = await client.query<{ seq: string; bytes: string | null }>(
      `select ${seq} as seq, octet_length(${quoteIdentifier(columns.payload)}::text) as bytes
         from ${this.table}
        where ${seq} > $1 ${undelivered} and ${condition} order by ${seq} limit $2`,
      [after, PAGE_ROWS, ...values],
    );
    return rows.map((row) => ({ seq: parseIdentity(columns.seq, row.seq), bytes: Number(row.bytes ?? 0) }));
  }

  private async readShape(): Promise<TableShape> {
    const { rows } = await this.options.client.query<{ name: string; oid: string }>(
      `select attname as name, atttypid as oid from pg_attribute
        where attrelid = $1::regclass and attnum > 0 and not attisdropped order by attnum`,
      [this.table],
    );
    return {
      columns: rows.map(({ name }) => name),
      typeOids: new Map(rows.map(({ name, oid }) => [name, Number(oid)])),
    };
  }

  private async fetch(shape: TableShape, page: readonly PageRow[]): Promise<OutboxEvent[]> {
    const { config, client } = this.options;
    const { columns } = config.outbox;
    const seq = quoteIdentifier(columns.seq);
    // An oversized payload stands alone in its page; it stays in the database, where it is parked.
    const leftBytes = (page[0]?.bytes ?? 0) > config.maxEventBytes ? (page[0]?.bytes ?? 0) : 0;
    const wanted = shape.columns.filter((column) => leftBytes === 0 || column !== columns.payload);
    const { rows } = await client.query<Record<string, string | null>>(
      `select ${wanted.map(quoteIdentifier).join(', ')}, extract(epoch from ${createdAt(shape, columns.createdAt)}) * 1000 as relay_committed_ms
         from ${this.table} where ${seq} = any($1::bigint[]) order by ${seq}`,
      [page.map((row) => row.seq)],
    );
    return rows.map((values) => toEvent(shape, values, columns, leftBytes));
  }
}

function bySeq(seq: string): string {
  return `${seq} = any($3::bigint[])`;
}

function bySnapshot(xid: string): string {
  // One that no transaction of this server can have yet came with a restored dump, and only this pass will deliver it.
  const restored = `${xid} >= pg_snapshot_xmax(pg_current_snapshot())`;
  return `(pg_visible_in_snapshot(${xid}, $3::pg_snapshot) or ${restored})
          and ($4::pg_snapshot is null or not pg_visible_in_snapshot(${xid}, $4::pg_snapshot))`;
}

function createdAt(shape: TableShape, column: string): string {
  return shape.typeOids.has(column) ? quoteIdentifier(column) : 'clock_timestamp()';
}

/** An oversized payload goes alone: what is left out of its fetch must not be left out of its neighbours'. */
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
  payloadBytes: number,
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
  const left = payloadBytes > 0 ? ({ payloadLeftInTable: true } as const) : {};
  return { ...left, row, seq, xid, transaction, sizeBytes: Math.max(row.sizeBytes, payloadBytes) };
}

function toBatch(events: readonly OutboxEvent[]): Batch {
  return { events, transactions: events.map(({ transaction }) => transaction), heardLsn: 0n };
}
