import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { readColumns } from '../../../postgres/columns.ts';
import { qualified, quoteIdentifier } from '../../../postgres/identifier.ts';
import { rowKey, type RowKey } from '../../../postgres/row-key.ts';
import { isUndelivered } from '../../../postgres/undelivered.ts';
import type { OutboxEvent, Transaction } from '../event.ts';
import { parseIdentity } from '../identity.ts';
import type { Batch } from '../source.ts';
import type { Numbering } from './numbering.ts';
import {
  isOutOfMemory,
  isTooLargeToPrint,
  keptValues,
  measureEach,
  sizeExpression,
  storedExpression,
  UNPRINTABLE_BYTES,
} from './row-size.ts';
import { TableRow, type TableShape } from './table-row.ts';

/** Which rows are meant. */
export type WantedRows =
  /** What a snapshot sees, without what an older one (`horizon`) saw, which was delivered before: a set that can't grow. */
  { readonly snapshot: string; readonly horizon: string | undefined } | { readonly seqs: readonly number[] };

/** Below every `seq`. */
export const BEFORE_ALL = -1;

/** Rows with a greater `seq` than `after`. */
export interface SeqRange {
  readonly after: number;
  /** undefined: without an end. */
  readonly upTo: number | undefined;
}

const TIMESTAMPTZ_OID = 1184;
const WHOLE: SeqRange = { after: BEFORE_ALL, upTo: undefined };

export interface PageRow {
  readonly seq: number;
  /** Bytes of the row's text form, without those of fixed length. */
  readonly bytes: number;
}

/** `xid` where a number is only a place: without it another row may have come to stand there. */
export interface SeenRow {
  readonly seq: number;
  readonly xid: number | undefined;
}

export interface LookRequest {
  readonly limit: number;
  /** undefined: from the beginning of the table. */
  readonly from: number | undefined;
  readonly numbering: Numbering | undefined;
}

export interface LookAnswer {
  readonly rows: readonly SeenRow[];
  /** Last number that the sequence has given out. */
  readonly drawn: number | undefined;
  /** On the server, without waiting for other statements of the connection. */
  readonly tookMs: number;
  /** When it began, by the server's clock: what it did not see was committed later. */
  readonly atMs: number;
}

/**
 * So many rows of the table are looked through in one statement, however few of them are wanted: with CLEANUP=none all of
 * history stands before what is new, and a statement has its deadline.
 */
const RANGE_ROWS = 50_000;
/** Bytes as stored whose text form is measured in one statement: a value can be printed hundreds of times as long. */
const MEASURED_BYTES = 32 * 1_048_576;

/** A server that is out of memory for one row may be so for a moment; for so long others are kept waiting. */
const OUT_OF_MEMORY_ATTEMPTS = 10;
const OUT_OF_MEMORY_REST_MS = 1_000;

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
  private readonly key: RowKey;
  private shape: TableShape | undefined;

  constructor(config: Config, client: Client) {
    this.config = config;
    this.client = client;
    this.table = qualified(config.outbox.schema, config.outbox.table);
    this.key = rowKey(config.outbox);
  }

  /** The first of them in the range, at most `PAGE_ROWS`, and no more than can be measured at once; none: there are no more. */
  async nextPage(wanted: WantedRows, range: SeqRange): Promise<PageRow[]> {
    try {
      this.shape ??= await this.readShape();
      return await this.readPage(wanted, range, sizeExpression(this.shape));
    } catch (error) {
      if (!isTooLargeToPrint(error)) throw error;
      const page = await this.readPage(wanted, range, '0');
      return await measureEach(
        page.map(({ seq }) => seq),
        async (seqs) => await this.readPage({ seqs }, range, sizeExpression(this.shape as TableShape)),
        async (seq, reason) => await this.toldTooLarge(seq, reason),
      );
    }
  }

  /** How far to look through the table at a time; undefined: it ends before. */
  async endOfRange(after: number): Promise<number | undefined> {
    const { key, client } = this;
    const { outbox, cleanup } = this.config;
    const { rows } = await client.query<{ seq: string }>(
      `select ${key.seq} as seq from ${this.table} o where ${key.seq} > $1 and ${isUndelivered(outbox, cleanup)}
        order by ${key.order} offset ${RANGE_ROWS - 1} limit 1`,
      [after],
    );
    const [row] = rows;
    return row && this.parseSeq(row.seq);
  }

  /** The server can be out of memory for a moment, also beside a small row. */
  private async toldTooLarge(seq: number, reason: unknown): Promise<PageRow> {
    const shape = this.shape as TableShape;
    const measure = async (size: string): Promise<PageRow | undefined> =>
      (await this.readPage({ seqs: [seq] }, WHOLE, size))[0];
    if (isOutOfMemory(reason) && ((await measure(storedExpression(shape)))?.bytes ?? 0) < MEASURED_BYTES) {
      for (let attempt = 0; attempt < OUT_OF_MEMORY_ATTEMPTS; attempt++) {
        await sleep(OUT_OF_MEMORY_REST_MS);
        const row = await measure(sizeExpression(shape)).catch((error: unknown) => {
          if (!isTooLargeToPrint(error)) throw error;
        });
        if (row) return row;
      }
    }
    return { seq, bytes: UNPRINTABLE_BYTES };
  }

  private async readPage(wanted: WantedRows, range: SeqRange, size: string): Promise<PageRow[]> {
    const { client, key } = this;
    const { outbox, cleanup } = this.config;
    const { condition, values } = whereOf(wanted, key);
    const stored = storedExpression(this.shape as TableShape);
    const upTo = range.upTo === undefined ? '' : `and ${key.seq} <= ${range.upTo}`;
    const { rows } = await client.query<{ seq: string; bytes: string | null }>(
      `select relay_seq as seq, ${size} as bytes from (
         select *, sum(relay_stored) over (rows unbounded preceding) - relay_stored as relay_before from (
           select o.*, ${key.seq} as relay_seq, ${stored} as relay_stored from ${this.table} o
            where ${key.seq} > $1 ${upTo} and ${isUndelivered(outbox, cleanup)} ${condition} order by ${key.order} limit $2) o) o
        where relay_before < ${MEASURED_BYTES}`,
      [range.after, PAGE_ROWS, ...values],
    );
    return rows.map((row) => ({ seq: this.parseSeq(row.seq), bytes: Number(row.bytes ?? 0) }));
  }

  /**
   * Numbers of the first `limit` rows that are undelivered now, of one snapshot, from the number `from` on. From the
   * beginning there is no condition: a row without a valid number must be told, not left out.
   */
  async undelivered({ limit, from, numbering }: LookRequest): Promise<LookAnswer> {
    const { key } = this;
    const { outbox, cleanup } = this.config;
    const beyond = from === undefined ? '' : `and ${key.seq} >= $2`;
    const { rows } = await this.client.query<{
      seqs: string;
      drawn: string | null;
      took_ms: string;
      at_ms: string;
    }>(
      `select array_to_string(array(
                select ${outbox.numbered ? key.seq : `concat(${key.seq}, ':', ${key.xid})`} from ${this.table} o where ${isUndelivered(outbox, cleanup)} ${beyond} order by ${key.order} limit $1), ',', 'NULL') as seqs,
              ${numbering ? drawnFrom(numbering) : 'null'} as drawn,
              extract(epoch from clock_timestamp() - statement_timestamp()) * 1000 as took_ms,
              extract(epoch from statement_timestamp()) * 1000 as at_ms`,
      from === undefined ? [limit] : [limit, from],
    );
    const [{ seqs, drawn, took_ms: tookMs, at_ms: atMs }] = rows as [(typeof rows)[number]];
    return {
      rows: seqs === '' ? [] : seqs.split(',').map((text) => this.parseSeen(text)),
      drawn: drawn === null ? undefined : Number(drawn),
      tookMs: Number(tookMs),
      atMs: Number(atMs),
    };
  }

  private parseSeen(text: string): SeenRow {
    const [seq = '', xid] = text.split(':');
    return { seq: this.parseSeq(seq), xid: xid === undefined ? undefined : Number(xid) };
  }

  private parseSeq(text: string): number {
    return parseIdentity(this.config.outbox.columns.seq, text);
  }

  /**
   * These rows, in the order in which they are given, as far as they are still there. None was committed before
   * `notBeforeMs`, whatever time its transaction gave it. Ends where another row stands in the place of one of them: what
   * was seen there may stand elsewhere now, and what comes after it must not pass it.
   */
  async *rows(seen: readonly SeenRow[], signal: AbortSignal, notBeforeMs: number): AsyncGenerator<Batch> {
    const xids = this.config.outbox.numbered ? undefined : new Map(seen.map(({ seq, xid }) => [seq, xid]));
    for (let left = seen.map(({ seq }) => seq); left.length > 0 && !signal.aborted;) {
      const page = await this.nextPage({ seqs: left }, WHOLE);
      for await (const batch of this.fetch(page, signal, notBeforeMs)) {
        if (xids && batch.events.some(({ seq, xid }) => xids.get(seq) !== xid)) return;
        yield batch;
      }
      const last = page.at(-1);
      if (!last) return;
      left = left.slice(left.indexOf(last.seq) + 1);
    }
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
  async *fetch(
    page: readonly PageRow[],
    signal: AbortSignal,
    notBeforeMs = Number.NEGATIVE_INFINITY,
  ): AsyncGenerator<Batch> {
    for (let from = 0; from < page.length && !signal.aborted;) {
      const to = endOfFetch(page, from, this.config.maxEventBytes);
      this.shape ??= await this.readShape();
      const events = await this.fetchRows(this.shape, page.slice(from, to), notBeforeMs);
      from = to;
      yield toBatch(events);
    }
  }

  private async fetchRows(
    shape: TableShape,
    page: readonly PageRow[],
    notBeforeMs: number,
  ): Promise<OutboxEvent[]> {
    const { config, client, key } = this;
    const { columns, numbered } = config.outbox;
    // An oversized row stands alone in its page; it stays in the database, where it is parked.
    const leftBytes = (page[0]?.bytes ?? 0) > config.maxEventBytes ? (page[0]?.bytes ?? 0) : 0;
    const wanted = [
      ...(leftBytes > 0 ? keptValues(shape) : shape.columns.map(quoteIdentifier)),
      ...(numbered ? [] : [`${key.seq} as relay_seq`, `${key.xid} as relay_xid`]),
    ];
    const { rows } = await client.query<Record<string, string | null>>(
      `select ${wanted.join(', ')}, extract(epoch from ${createdAt(shape, columns.createdAt)}) * 1000 as relay_committed_ms
         from ${this.table} o where ${key.among('$1::bigint[]')} order by ${key.order}`,
      [page.map((row) => row.seq)],
    );
    return rows.map((values) => toEvent(shape, { values, columns, leftBytes, notBeforeMs }));
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

function whereOf(wanted: WantedRows, { among, xid }: RowKey): Where {
  if ('seqs' in wanted) return { condition: `and ${among('$3::bigint[]')}`, values: [wanted.seqs] };
  // One that no transaction of this server can have yet came with a restored dump, and only this pass will deliver it.
  const restored = `${xid} >= pg_snapshot_xmax(pg_current_snapshot())`;
  return {
    condition: `and (pg_visible_in_snapshot(${xid}, $3::pg_snapshot) or ${restored})
          and ($4::pg_snapshot is null or not pg_visible_in_snapshot(${xid}, $4::pg_snapshot))`,
    values: [wanted.snapshot, wanted.horizon ?? null],
  };
}

/**
 * A time of every row: neither 'infinity' nor NULL is one, and there is no record that could carry them. One without a
 * zone is that of whoever wrote it, hours before or after ours.
 */
function createdAt(shape: TableShape, column: string): string {
  if (shape.typeOids.get(column) !== TIMESTAMPTZ_OID) return 'clock_timestamp()';
  const created = quoteIdentifier(column);
  return `case when isfinite(${created}) then ${created} else clock_timestamp() end`;
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
  read: {
    readonly values: Readonly<Record<string, string | null>>;
    readonly columns: Config['outbox']['columns'];
    readonly leftBytes: number;
    readonly notBeforeMs: number;
  },
): OutboxEvent {
  const { values, columns, leftBytes, notBeforeMs } = read;
  const row = new TableRow(shape, values);
  const seq = parseIdentity(columns.seq, values['relay_seq'] ?? row.text(columns.seq));
  const xid = parseIdentity(columns.xid, values['relay_xid'] ?? row.text(columns.xid));
  const transaction: Transaction = {
    xid: undefined,
    committedAtMs: Math.max(Number(values['relay_committed_ms'] ?? 0), notBeforeMs),
    endLsn: BigInt(seq),
    outstanding: 1,
  };
  const left = leftBytes > 0 ? { leftInTableBytes: leftBytes } : {};
  return { ...left, row, seq, xid, transaction, sizeBytes: row.sizeBytes };
}

function toBatch(events: readonly OutboxEvent[]): Batch {
  return { events, transactions: events.map(({ transaction }) => transaction), heardLsn: 0n };
}
