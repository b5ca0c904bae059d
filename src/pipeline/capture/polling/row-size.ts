import { DatabaseError } from 'pg';
import { quoteIdentifier } from '../../../postgres/identifier.ts';
import { BYTEA_OID } from '../bytea.ts';
import type { TableShape } from './table-shape.ts';

/** What a look reports for a row whose text form the server itself can't make: at least this. */
export const UNPRINTABLE_BYTES = 2 ** 30;
/** Values up to here are fetched from an oversized row too: what tells it from others, not its content. */
const KEPT_BYTES = 65_536;
/** text, varchar, char: their length is known without reading them. */
const TEXT_OIDS: ReadonlySet<number | undefined> = new Set([25, 1043, 1042]);

/**
 * Bytes of the text form of all values of variable length, as an expression. Neither `text` nor `bytea` is read for it;
 * `bytea` must not be printed at all: from 512 MiB on that is more than the server can allocate.
 */
export function sizeExpression(shape: TableShape): string {
  const sizes = shape.columns.flatMap((name) => {
    if (shape.fixed.has(name)) return [];
    const column = quoteIdentifier(name);
    const size =
      shape.typeOids.get(name) === BYTEA_OID
        ? `octet_length(${column}) * 2::bigint + 2`
        : `octet_length(${column}::text)`;
    return [`coalesce(${size}, 0)`];
  });
  return ['0::bigint', ...sizes].join(' + ');
}

/** Bytes of the same values as they are stored, compressed perhaps: known without reading them. */
export function storedExpression(shape: TableShape): string {
  const sizes = shape.columns
    .filter((name) => !shape.fixed.has(name))
    .map((name) => `coalesce(pg_column_size(${quoteIdentifier(name)}), 0)`);
  return ['0::bigint', ...sizes].join(' + ');
}

/** Select list for a row that stays in the database: nothing in it is large, and nothing can fail. */
export function keptValues(shape: TableShape): readonly string[] {
  return shape.columns.flatMap((name) => {
    const column = quoteIdentifier(name);
    if (shape.fixed.has(name)) return [column];
    if (!TEXT_OIDS.has(shape.typeOids.get(name))) return [];
    return [`case when octet_length(${column}) <= ${KEPT_BYTES} then ${column} end as ${column}`];
  });
}

/** The server failed at the size of a value: 54000, 53200, or "invalid memory alloc request size" (XX000). */
export function isTooLargeToPrint(error: unknown): boolean {
  return error instanceof DatabaseError && /^(?:54000|53200|XX000)$/.test(error.code ?? '');
}

export function isOutOfMemory(error: unknown): boolean {
  return error instanceof DatabaseError && error.code === '53200';
}

/**
 * Measures rows together and, where that fails, in halves, until the row that the server can't print is found: it is
 * told as too large, and keeps no other from being read.
 */
export async function measureEach<Row>(
  seqs: readonly number[],
  measure: (seqs: readonly number[]) => Promise<Row[]>,
  unprintable: (seq: number, error: unknown) => Promise<Row>,
): Promise<Row[]> {
  try {
    return await measure(seqs);
  } catch (error) {
    const [only] = seqs;
    if (only === undefined || !isTooLargeToPrint(error)) throw error;
    if (seqs.length === 1) return [await unprintable(only, error)];
    const middle = seqs.length >> 1;
    return [
      ...(await measureEach(seqs.slice(0, middle), measure, unprintable)),
      ...(await measureEach(seqs.slice(middle), measure, unprintable)),
    ];
  }
}
