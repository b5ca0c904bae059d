import type { Client } from 'pg';
import type { OutboxConfig } from '../config/config.ts';
import { BASE_TYPE } from './columns.ts';
import { derivedName } from './identifier.ts';

/** The outbox as it is in the database. */
export interface OutboxTable {
  readonly partitioned: boolean;
  /** Column name → type as PostgreSQL prints it, of a domain that below it. */
  readonly columns: ReadonlyMap<string, string>;
  /** Schema and name of the sequence behind the column `seq`, if there is one. */
  readonly sequence: readonly [string, string] | undefined;
  /** The session's role may alter it. */
  readonly owned: boolean;
  /** A policy decides which rows the session's role sees. */
  readonly filtered: boolean;
}

/** `undefined` when there is no such table. Throws nothing of its own. */
export async function readOutboxTable(
  client: Client,
  outbox: OutboxConfig,
): Promise<OutboxTable | undefined> {
  const tables = await client.query<{ oid: string; relkind: string; owned: string; filtered: string }>(
    `select c.oid, c.relkind, pg_has_role(current_user, c.relowner, 'USAGE')::text as owned,
            row_security_active(c.oid)::text as filtered
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')`,
    [outbox.schema, outbox.table],
  );
  const table = tables.rows[0];
  if (table === undefined) return undefined;
  const columns = await client.query<{ name: string; type: string }>(
    `select attname as name, format_type(${BASE_TYPE}, null) as type
       from pg_attribute
      where attrelid = $1 and attnum > 0 and not attisdropped order by attnum`,
    [table.oid],
  );
  return {
    partitioned: table.relkind === 'p',
    owned: table.owned === 'true',
    filtered: table.filtered === 'true',
    columns: new Map(columns.rows.map((row) => [row.name, row.type])),
    sequence: await readSequence(client, table.oid, outbox.columns.seq),
  };
}

/** What the default draws from, or the sequence of an identity column (its dependency points the other way). */
async function readSequence(
  client: Client,
  table: string,
  column: string,
): Promise<[string, string] | undefined> {
  const found = await client.query<{ schema: string; name: string }>(
    `select n.nspname as schema, s.relname as name
       from pg_attribute a
       left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
       join pg_depend p on
            (p.classid = 'pg_attrdef'::regclass and p.objid = d.oid and p.refclassid = 'pg_class'::regclass)
         or (p.refclassid = 'pg_class'::regclass and p.refobjid = a.attrelid and p.refobjsubid = a.attnum
             and p.classid = 'pg_class'::regclass and p.deptype = 'i')
       join pg_class s on s.relkind = 'S' and s.oid in (p.refobjid, p.objid)
       join pg_namespace n on n.oid = s.relnamespace
      where a.attrelid = $1 and a.attname = $2 limit 1`,
    [table, column],
  );
  const row = found.rows[0];
  return row === undefined ? undefined : [row.schema, row.name];
}

/** Values of the placeholders in `migrations/`. `emit` differs only when another outbox of the schema has the name. */
export function templateValues(
  outbox: OutboxConfig,
  table: OutboxTable | undefined,
  functions: { readonly emit: string; readonly lockKey: string },
): Record<string, string | readonly string[]> {
  const { columns } = outbox;
  const payloadType = table?.columns.get(columns.payload) ?? 'jsonb';
  return {
    schema: outbox.schema,
    outbox: outbox.table,
    sequence: table?.sequence ?? [outbox.schema, derivedName(outbox.table, '_seq')],
    emit: functions.emit,
    lock_key: functions.lockKey,
    payload_type: ['jsonb', 'json', 'text', 'bytea'].includes(payloadType) ? payloadType : 'text',
    id: columns.id,
    aggregatetype: columns.aggregateType,
    aggregateid: columns.aggregateId,
    type: columns.type,
    payload: columns.payload,
    headers: columns.headers,
    seq: columns.seq,
    xid: columns.xid,
    created_at: columns.createdAt,
    delivered_at: columns.deliveredAt,
  };
}
