import { decodeHexBytea, BYTEA_OID } from '../bytea.ts';
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

export const SQL_NULL = -1;

/** So many decimal digits a number holds exactly. */
const MAX_EXACT_DIGITS = 15;

/**
 * A row of the stream: one copy of the tuple's bytes and the offsets of its values. Values become strings only when
 * asked for. The copy is needed: the read buffer is large, and one held event would keep all of it in memory.
 */
export class TupleRow implements Row {
  private readonly relation: Relation;
  private readonly bytesOfTuple: Buffer;
  /** Start and end of each value in the tuple; start is SQL_NULL for NULL. */
  private readonly offsets: readonly number[];

  constructor(relation: Relation, bytesOfTuple: Buffer, offsets: readonly number[]) {
    this.relation = relation;
    this.bytesOfTuple = bytesOfTuple;
    this.offsets = offsets;
  }

  get columns(): readonly string[] {
    return this.relation.columns;
  }

  text(column: string): string | null | undefined {
    const index = this.relation.indexOf.get(column);
    if (index === undefined) return undefined;
    const start = this.offsets[index * 2] as number;
    return start === SQL_NULL ? null : this.bytesOfTuple.toString('utf8', start, this.offsets[index * 2 + 1]);
  }

  /** A value of decimal digits as a number, without a string between; NaN for anything else, or above 15 digits. */
  digits(column: string): number {
    const index = this.relation.indexOf.get(column);
    const start = index === undefined ? SQL_NULL : (this.offsets[index * 2] as number);
    const end = index === undefined ? 0 : (this.offsets[index * 2 + 1] as number);
    if (start === SQL_NULL || end === start || end - start > MAX_EXACT_DIGITS) return Number.NaN;
    let value = 0;
    for (let at = start; at < end; at++) {
      const digit = (this.bytesOfTuple[at] as number) - 0x30;
      if (digit < 0 || digit > 9) return Number.NaN;
      value = value * 10 + digit;
    }
    return value;
  }

  bytes(column: string): Buffer | null | undefined {
    const index = this.relation.indexOf.get(column);
    if (index === undefined) return undefined;
    const start = this.offsets[index * 2] as number;
    if (start === SQL_NULL) return null;
    const stored = this.bytesOfTuple.subarray(start, this.offsets[index * 2 + 1]);
    return this.relation.typeOids[index] === BYTEA_OID ? decodeHexBytea(stored) : stored;
  }

  typeOid(column: string): number | undefined {
    const index = this.relation.indexOf.get(column);
    return index === undefined ? undefined : this.relation.typeOids[index];
  }
}
