import type { Client } from 'pg';
import { quoteLiteral } from './identifier.ts';

export interface Column {
  readonly name: string;
  /** Of its type; of a domain, of the type below it. */
  readonly oid: number;
  /** Whether its type has a fixed length. */
  readonly fixed: boolean;
  /** Tells it from what an ALTER TABLE makes of it. */
  readonly signature: string;
}

const SIGNATURE = `atttypid || ' ' || attname`;

/** The type of an attribute below all domains, an expression. */
export const BASE_TYPE = `(with recursive below as (
    select t.oid, t.typbasetype from pg_type t where t.oid = atttypid
    union all select t.oid, t.typbasetype from below b join pg_type t on t.oid = b.typbasetype)
  select oid from below where typbasetype = 0)`;

/** Those of a table (its name qualified and quoted), in their order. Throws the server's error when there is no such table. */
export async function readColumns(client: Client, table: string): Promise<Column[]> {
  const { rows } = await client.query<{ name: string; oid: string; fixed: string; signature: string }>(
    `select attname as name, (attlen > 0)::text as fixed, ${SIGNATURE} as signature,
            ${BASE_TYPE} as oid
       from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped order by attnum`,
    [table],
  );
  return rows.map(({ name, oid, fixed, signature }) => ({
    name,
    oid: Number(oid),
    fixed: fixed === 'true',
    signature,
  }));
}

/**
 * Whether the table has other columns by now than those whose signatures are in `parameter` (text[]): true or NULL, as an
 * expression that any statement can bring along for next to nothing. A statement locks its table before it takes its
 * snapshot, so that it says what the columns were that this very statement has read.
 */
export function isAltered(table: string, parameter: string): string {
  return `(select nullif(array_agg(${SIGNATURE} order by attnum) is distinct from ${parameter}::text[], false)
    from pg_attribute where attrelid = ${quoteLiteral(table)}::regclass and attnum > 0 and not attisdropped)`;
}
