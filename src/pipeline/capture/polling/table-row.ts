import type { OutboxConfig } from '../../../config/config.ts';
import { BYTEA_OID, decodeHexBytea } from '../bytea.ts';
import type { Bytes } from '../byte-range.ts';
import type { OutboxEvent, Row, Transaction } from '../event.ts';
import { parseIdentity } from '../identity.ts';
import type { TableShape } from './table-shape.ts';

/** Below, a `Buffer` would take more memory than it saves. */
const LONG_TEXT = 256;
/** Above, Node's pool of 64 KiB leaves too much of itself unused: `Buffer.from` wants room there for the worst case. */
const POOLED_BYTES = 1_024;

/**
 * A row that a query brought; its values are the server's text, like those of the stream. They are held as what is
 * smallest: one character above U+00FF makes V8 take two bytes for each, and a payload would be here twice.
 */
export class TableRow implements Row {
  /** Bytes of all values in text form. */
  readonly sizeBytes: number;
  private readonly shape: TableShape;
  private readonly values: Record<string, string | Buffer | null>;

  /** Keeps `values`, and changes them. `measuredBytes`: of those of variable length, as the server counted. */
  constructor(shape: TableShape, values: Record<string, string | Buffer | null>, measuredBytes: number) {
    this.shape = shape;
    this.values = values;
    let fixed = 0;
    let variable = 0;
    for (const column of shape.columns) {
      const length = values[column]?.length ?? 0;
      if (shape.fixed.has(column)) fixed += length;
      else variable += length;
    }
    // As many characters as bytes: nothing beyond ASCII, and no need to count each again.
    this.sizeBytes = variable === measuredBytes ? fixed + variable : this.measure();
  }

  get columns(): readonly string[] {
    return this.shape.columns;
  }

  text(column: string): string | null | undefined {
    const value = this.value(column);
    if (typeof value === 'string' || !value) return value;
    return this.isBytea(column) ? `\\x${value.toString('hex')}` : value.toString('utf8');
  }

  bytes(column: string): Buffer | null | undefined {
    const value = this.value(column);
    if (typeof value !== 'string') return value;
    const bytes = this.isBytea(column) ? decodeHexBytea(value) : encode(value);
    // In place of the text, which is hardly ever asked for again.
    this.values[column] = bytes;
    return bytes;
  }

  typeOid(column: string): number | undefined {
    return this.shape.typeOids.get(column);
  }

  /** Small Buffers lie in Node's pool. */
  own(body: Bytes | null): Bytes | null {
    let own = body;
    for (const column of this.shape.columns) {
      const value = this.values[column];
      if (!(value instanceof Buffer) || value.buffer.byteLength === value.length) continue;
      const copy = Buffer.allocUnsafeSlow(value.length);
      value.copy(copy);
      this.values[column] = copy;
      if (value === body) own = copy;
    }
    return own;
  }

  private value(column: string): string | Buffer | null | undefined {
    return this.shape.typeOids.has(column) ? (this.values[column] ?? null) : undefined;
  }

  private isBytea(column: string): boolean {
    return this.shape.typeOids.get(column) === BYTEA_OID;
  }

  private measure(): number {
    let sum = 0;
    for (const column of this.shape.columns) {
      const text = this.values[column];
      if (typeof text !== 'string') continue;
      if (text.length < LONG_TEXT || this.isBytea(column)) {
        sum += Buffer.byteLength(text);
      } else {
        const bytes = encode(text);
        this.values[column] = bytes;
        sum += bytes.length;
      }
    }
    return sum;
  }
}

function encode(text: string): Buffer {
  if (text.length <= POOLED_BYTES) return Buffer.from(text);
  const bytes = Buffer.allocUnsafeSlow(Buffer.byteLength(text));
  bytes.write(text);
  return bytes;
}

/** What is known of rows beside their values. */
export interface Fetched {
  readonly shape: TableShape;
  readonly columns: OutboxConfig['columns'];
  /** By `seq`: of its values of variable length, as the server counted. */
  readonly bytesOf: ReadonlyMap<number, number>;
  /** What of them stayed in the table. */
  readonly leftBytes: number;
  /** None was committed before. */
  readonly notBeforeMs: number;
}

/** Each row is a transaction of its own whose position is its `seq`, so that the same books serve both sources. */
export function toEvent(values: Record<string, string | null>, fetched: Fetched): OutboxEvent {
  const { shape, columns, bytesOf, leftBytes, notBeforeMs } = fetched;
  const seq = parseIdentity(columns.seq, values['relay_seq'] ?? values[columns.seq]);
  const xid = parseIdentity(columns.xid, values['relay_xid'] ?? values[columns.xid]);
  const transaction: Transaction = {
    xid: undefined,
    committedAtMs: Math.max(Number(values['relay_committed_ms'] ?? 0), notBeforeMs),
    endLsn: BigInt(seq),
    outstanding: 1,
  };
  const row = new TableRow(shape, values, bytesOf.get(seq) ?? 0);
  const left = leftBytes > 0 ? { leftInTableBytes: leftBytes } : {};
  return { ...left, row, seq, xid, transaction, sizeBytes: row.sizeBytes };
}
