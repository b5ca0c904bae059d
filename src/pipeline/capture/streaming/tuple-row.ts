import { decodeHexBytea, BYTEA_OID } from '../bytea.ts';
import { ByteRange, type Bytes } from '../byte-range.ts';
import type { Row } from '../event.ts';

/** The table's shape as the stream announced it; valid until the next announcement for the same relation. */
export interface Relation {
  readonly oid: number;
  readonly schema: string;
  readonly table: string;
  readonly columns: readonly string[];
  readonly typeOids: readonly number[];
  readonly indexOf: ReadonlyMap<string, number>;
}

const VALUE_NULL = 0x6e; // n
const VALUE_TEXT = 0x74; // t
const SQL_NULL = -1;
/** So many decimal digits a number holds exactly. */
const MAX_EXACT_DIGITS = 15;

/**
 * Start and end of every value of the tuple that was located last. Rows are looked at column by column, one row after
 * the other: keeping this for each would double what an event holds in memory.
 */
const bounds: number[] = [];
let locatedIn: Buffer | undefined;
let locatedAt = 0;

/** A row of the stream: a copy of the tuple, inside a buffer that it may share. Values become strings only when asked for. */
export class TupleRow implements Row {
  private readonly relation: Relation;
  private buffer: Buffer;
  private start: number;

  /** The tuple as pgoutput sends it, from `start` on. Its shape was checked (`tupleEnd`). */
  constructor(relation: Relation, buffer: Buffer, start: number) {
    this.relation = relation;
    this.buffer = buffer;
    this.start = start;
  }

  get columns(): readonly string[] {
    return this.relation.columns;
  }

  text(column: string, like?: string): string | null | undefined {
    const index = this.locate(column);
    if (index === undefined) return undefined;
    const start = bounds[index] as number;
    if (start === SQL_NULL) return null;
    const end = bounds[index + 1] as number;
    if (like !== undefined && isAscii(this.buffer, start, end, like)) return like;
    return this.buffer.toString('utf8', start, end);
  }

  /** A value of decimal digits as a number, without a string between; NaN for anything else, or above 15 digits. */
  digits(column: string): number {
    const index = this.locate(column);
    const start = index === undefined ? SQL_NULL : (bounds[index] as number);
    const end = index === undefined ? 0 : (bounds[index + 1] as number);
    if (start === SQL_NULL || end === start || end - start > MAX_EXACT_DIGITS) return Number.NaN;
    let value = 0;
    for (let at = start; at < end; at++) {
      const digit = (this.buffer[at] as number) - 0x30;
      if (digit < 0 || digit > 9) return Number.NaN;
      value = value * 10 + digit;
    }
    return value;
  }

  bytes(column: string): Bytes | null | undefined {
    const index = this.locate(column);
    if (index === undefined) return undefined;
    const start = bounds[index] as number;
    if (start === SQL_NULL) return null;
    const end = bounds[index + 1] as number;
    if (this.relation.typeOids[index / 2] !== BYTEA_OID) return new ByteRange(this.buffer, start, end);
    return decodeHexBytea(this.buffer.toString('latin1', start, end));
  }

  typeOid(column: string): number | undefined {
    const index = this.relation.indexOf.get(column);
    return index === undefined ? undefined : this.relation.typeOids[index];
  }

  own(body: Bytes | null): Bytes | null {
    const { buffer, start } = this;
    const end = tupleEnd(this.relation, buffer, start);
    if (buffer.length > end - start) {
      this.buffer = copyOf(buffer.subarray(start, end));
      this.start = 0;
    }
    if (body instanceof ByteRange) {
      const at = body.view().byteOffset - buffer.byteOffset - start + this.start;
      return new ByteRange(this.buffer, at, at + body.length);
    }
    // A decoded bytea; small ones lie in a pool.
    return body !== null && body.length < body.buffer.byteLength ? copyOf(body) : body;
  }

  /** Where the column's start stands in `bounds`, which hold this row's values afterwards. */
  private locate(column: string): number | undefined {
    const index = this.relation.indexOf.get(column);
    if (index === undefined) return undefined;
    if (locatedIn !== this.buffer || locatedAt !== this.start) {
      locateValues(this.relation, this.buffer, this.start);
      locatedIn = this.buffer;
      locatedAt = this.start;
    }
    return index * 2;
  }
}

/** Types whose values are not the bytes of their text alone, by their names in `pg_catalog`. */
const OIDS_BY_NAME: ReadonlyMap<string, number> = new Map([
  ['bytea', BYTEA_OID],
  ['json', 114],
  ['jsonb', 3802],
]);

/**
 * Of a type that pgoutput names before the relation that uses it: for a domain it gives the name of the type below, through
 * all domains between. undefined: nothing that has to be told from text.
 */
export function baseTypeOid(schema: string, name: string): number | undefined {
  // The protocol leaves the name of pg_catalog out.
  return schema === '' ? OIDS_BY_NAME.get(name) : undefined;
}

/** The relation as announced has the oids of domains; `baseOids`: of those that stand for another type. */
export function withBaseTypes(relation: Relation, baseOids: ReadonlyMap<number, number>): Relation {
  if (!relation.typeOids.some((oid) => baseOids.has(oid))) return relation;
  return { ...relation, typeOids: relation.typeOids.map((oid) => baseOids.get(oid) ?? oid) };
}

/** The offset after the tuple at `start`. Throws TypeError when it does not have the relation's shape. */
export function tupleEnd(relation: Relation, buffer: Buffer, start: number): number {
  locatedIn = undefined;
  return locateValues(relation, buffer, start);
}

function locateValues(relation: Relation, buffer: Buffer, start: number): number {
  const count = buffer.readUInt16BE(start);
  if (count !== relation.columns.length)
    throw new TypeError('pgoutput: tuple and relation differ in columns');
  let offset = start + 2;
  for (let i = 0; i < count; i++) {
    const kind = buffer[offset];
    if (kind === VALUE_TEXT) {
      const from = offset + 5;
      offset = from + buffer.readUInt32BE(offset + 1);
      bounds[i * 2] = from;
      bounds[i * 2 + 1] = offset;
    } else if (kind === VALUE_NULL) {
      offset += 1;
      bounds[i * 2] = SQL_NULL;
      bounds[i * 2 + 1] = SQL_NULL;
    } else {
      // 'u', an unchanged TOASTed value, only occurs in updates; 'b' only when binary transfer was asked for.
      throw new TypeError(`pgoutput: unexpected kind of value ${kind} in an insert`);
    }
  }
  return offset;
}

function copyOf(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}

/** Whether these bytes are this text; false also for any text beyond ASCII. */
function isAscii(buffer: Buffer, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit !== buffer[start + i] || unit > 0x7f) return false;
  }
  return true;
}
