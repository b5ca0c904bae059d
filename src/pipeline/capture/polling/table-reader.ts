import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { isAltered } from '../../../postgres/columns.ts';
import { qualified, quoteIdentifier } from '../../../postgres/identifier.ts';
import { rowKey, type RowKey } from '../../../postgres/row-key.ts';
import { isUndelivered } from '../../../postgres/undelivered.ts';
import type { OutboxEvent } from '../event.ts';
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
import { toEvent } from './table-row.ts';
import { endOfFetch, type PageRow } from './fetch-size.ts';
import { whereOf, type WantedRows } from './wanted-rows.ts';
import { Altered, CurrentShape, type TableShape } from './table-shape.ts';

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

interface PageRequest {
  readonly wanted: WantedRows;
  readonly range: SeqRange;
  /** Of a row, an expression. */
  readonly size: string;
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

/** Rows in one page. */
export const PAGE_ROWS = 2_000;

/**
 * Reads undelivered rows by `seq`, a page of numbers and sizes first, then their values in bounded fetches: a page of
 * large rows must not be held in memory.
 */
export class TableReader {
  private readonly config: Config;
  private readonly client: Client;
  private readonly table: string;
  private readonly key: RowKey;
  private readonly shape: CurrentShape;

  constructor(config: Config, client: Client) {
    this.config = config;
    this.client = client;
    this.table = qualified(config.outbox.schema, config.outbox.table);
    this.key = rowKey(config.outbox);
    this.shape = new CurrentShape(config, client, this.table);
  }

  /** The first of them in the range, at most `PAGE_ROWS`, and no more than can be measured at once; none: there are no more. */
  async nextPage(wanted: WantedRows, range: SeqRange): Promise<PageRow[]> {
    for (;;) {
      const page = await this.shape.during((shape) => this.measuredPage(shape, wanted, range));
      if (page) return page;
    }
  }

  private async measuredPage(shape: TableShape, wanted: WantedRows, range: SeqRange): Promise<PageRow[]> {
    const size = sizeExpression(shape);
    try {
      return await this.readPage(shape, { wanted, range, size });
    } catch (error) {
      if (!isTooLargeToPrint(error)) throw error;
      const page = await this.readPage(shape, { wanted, range, size: '0' });
      return await measureEach(
        page.map(({ seq }) => seq),
        async (seqs) => await this.readPage(shape, { wanted: { seqs }, range, size }),
        async (seq, reason) => await this.toldTooLarge(shape, seq, reason),
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
  private async toldTooLarge(shape: TableShape, seq: number, reason: unknown): Promise<PageRow> {
    const measure = async (size: string): Promise<PageRow | undefined> =>
      (await this.readPage(shape, { wanted: { seqs: [seq] }, range: WHOLE, size }))[0];
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

  private async readPage(shape: TableShape, { wanted, range, size }: PageRequest): Promise<PageRow[]> {
    const { client, key } = this;
    const { outbox, cleanup } = this.config;
    const { condition, values } = whereOf(wanted, key);
    const upTo = range.upTo === undefined ? '' : `and ${key.seq} <= ${range.upTo}`;
    const parameters = [range.after, PAGE_ROWS, ...values, shape.signatures];
    const { rows } = await client.query<{ seq: string; bytes: string | null } & Checked>(
      `select relay_seq as seq, ${size} as bytes, ${isAltered(this.table, `$${parameters.length}`)}::text as relay_altered from (
         select *, sum(relay_stored) over (rows unbounded preceding) - relay_stored as relay_before from (
           select o.*, ${key.seq} as relay_seq, ${storedExpression(shape)} as relay_stored from ${this.table} o
            where ${key.seq} > $1 ${upTo} and ${isUndelivered(outbox, cleanup)} ${condition} order by ${key.order} limit $2) o) o
        where relay_before < ${MEASURED_BYTES}`,
      parameters,
    );
    assertUnaltered(rows);
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
    const seqs = seen.map(({ seq }) => seq);
    for await (const batch of this.inPages(seqs, signal, notBeforeMs)) {
      if (xids && batch.events.some(({ seq, xid }) => xids.get(seq) !== xid)) return;
      yield batch;
    }
  }

  private async *inPages(
    seqs: readonly number[],
    signal: AbortSignal,
    notBeforeMs: number,
  ): AsyncGenerator<Batch> {
    for (let left = seqs; left.length > 0 && !signal.aborted;) {
      const page = await this.nextPage({ seqs: left }, WHOLE);
      yield* this.fetch(page, signal, notBeforeMs);
      const last = page.at(-1);
      if (!last) return;
      left = left.slice(left.indexOf(last.seq) + 1);
    }
  }

  /** The rows of a page, in batches of bounded size, each row once. Ends early when the signal aborts. */
  async *fetch(
    page: readonly PageRow[],
    signal: AbortSignal,
    notBeforeMs = Number.NEGATIVE_INFINITY,
  ): AsyncGenerator<Batch> {
    for (let from = 0; from < page.length && !signal.aborted;) {
      const to = endOfFetch(page, from, this.config.maxEventBytes);
      const part = page.slice(from, to);
      const events = await this.shape.during((shape) => this.fetchRows(shape, part, notBeforeMs));
      if (!events) {
        // The sizes are those of other columns: a new one may hold anything.
        const left = page.slice(from).map(({ seq }) => seq);
        yield* this.inPages(left, signal, notBeforeMs);
        return;
      }
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
    const bytesOf = new Map(page.map(({ seq, bytes }) => [seq, bytes]));
    // An oversized row stands alone in its page; it stays in the database, where it is parked.
    const leftBytes = (page[0]?.bytes ?? 0) > config.maxEventBytes ? (page[0]?.bytes ?? 0) : 0;
    const wanted = [
      ...(leftBytes > 0 ? keptValues(shape) : shape.columns.map(quoteIdentifier)),
      ...(numbered ? [] : [`${key.seq} as relay_seq`, `${key.xid} as relay_xid`]),
    ];
    const { rows } = await client.query<Record<string, string | null> & Checked>(
      `select ${wanted.join(', ')}, extract(epoch from ${createdAt(shape, columns.createdAt)}) * 1000 as relay_committed_ms,
              ${isAltered(this.table, '$2')}::text as relay_altered
         from ${this.table} o where ${key.among('$1::bigint[]')} order by ${key.order}`,
      [[...bytesOf.keys()], shape.signatures],
    );
    assertUnaltered(rows);
    const fetched = { shape, columns, bytesOf, leftBytes, notBeforeMs };
    return rows.map((values) => toEvent(values, fetched));
  }
}

/** Set when the table was altered before the statement. */
interface Checked {
  readonly relay_altered: string | null;
}

function assertUnaltered([row]: readonly Checked[]): void {
  if (row && row.relay_altered !== null) throw new Altered();
}

/** `last_value` of a sequence that nobody has drawn from is the number that comes next. */
function drawnFrom({ sequence }: Numbering): string {
  return `(select case when is_called then last_value else last_value - 1 end from ${sequence})`;
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

function toBatch(events: readonly OutboxEvent[]): Batch {
  return { events, transactions: events.map(({ transaction }) => transaction), heardLsn: 0n };
}
