import type { Client } from 'pg';

export interface Column {
  readonly name: string;
  /** Of its type. */
  readonly oid: number;
  /** Whether its type has a fixed length. */
  readonly fixed: boolean;
}

/** Those of a table (its name qualified and quoted), in their order. Throws the server's error when there is no such table. */
export async function readColumns(client: Client, table: string): Promise<Column[]> {
  const { rows } = await client.query<{ name: string; oid: string; fixed: string }>(
    `select attname as name, atttypid as oid, (attlen > 0)::text as fixed from pg_attribute
      where attrelid = $1::regclass and attnum > 0 and not attisdropped order by attnum`,
    [table],
  );
  return rows.map(({ name, oid, fixed }) => ({ name, oid: Number(oid), fixed: fixed === 'true' }));
}
