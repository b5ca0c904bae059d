import type { OutboxConfig } from '../config/config.ts';
import { RelayError } from '../errors/errors.ts';
import { derivedName, qualified, quoteIdentifier, quoteLiteral } from './identifier.ts';
import type { OutboxTable } from './outbox-table.ts';

/** Columns that the application must bring; everything else can be added. */
export function requireEventColumns(outbox: OutboxConfig, table: OutboxTable): void {
  const { columns } = outbox;
  const required = {
    OUTBOX_ID_COLUMN: columns.id,
    OUTBOX_AGGREGATE_TYPE_COLUMN: columns.aggregateType,
    OUTBOX_AGGREGATE_ID_COLUMN: columns.aggregateId,
    OUTBOX_TYPE_COLUMN: columns.type,
    OUTBOX_PAYLOAD_COLUMN: columns.payload,
  };
  const missing = Object.entries(required).filter(([, name]) => !table.columns.has(name));
  if (missing.length === 0) return;
  throw new RelayError(
    'stop',
    'column-missing',
    `${outbox.schema}.${outbox.table} has no column ${missing.map(([, name]) => name).join(', ')}`,
    { advice: `Name the table's own columns with ${missing.map(([variable]) => variable).join(', ')}.` },
  );
}

/** Names of the relay's columns that the table lacks. */
export function missingRelayColumns(outbox: OutboxConfig, table: OutboxTable): readonly string[] {
  const { seq, xid, createdAt, deliveredAt, headers } = outbox.columns;
  return [seq, xid, createdAt, deliveredAt, headers].filter((name) => !table.columns.has(name));
}

/**
 * Adds the relay's columns to an existing table, in one transaction that keeps writers out.
 * Existing rows are numbered by `id` when it is an integer, else by their creation time, else by their place in the
 * file, which is the order of insertion as long as no space was reused.
 */
export function adoptStatements(outbox: OutboxConfig, table: OutboxTable): readonly string[] {
  const name = qualified(outbox.schema, outbox.table);
  const missing = missingRelayColumns(outbox, table);
  const { columns } = outbox;
  const statements = [`lock table ${name} in access exclusive mode`];
  const add = (column: string, definition: string): void => {
    if (missing.includes(column))
      statements.push(`alter table ${name} add column ${quoteIdentifier(column)} ${definition}`);
  };
  add(columns.headers, 'jsonb');
  // Evaluated once, now: rows of before count as written by this transaction, and the table is not rewritten.
  add(columns.xid, 'xid8 not null default pg_current_xact_id()');
  if (missing.includes(columns.seq)) statements.push(...addSeq(outbox, table));
  // now() is one value for all rows, so that the table is not rewritten; new rows get the time of their insert.
  add(columns.createdAt, 'timestamptz not null default now()');
  if (missing.includes(columns.createdAt))
    statements.push(
      `alter table ${name} alter column ${quoteIdentifier(columns.createdAt)} set default clock_timestamp()`,
    );
  add(columns.deliveredAt, 'timestamptz');
  return statements;
}

function addSeq(outbox: OutboxConfig, table: OutboxTable): readonly string[] {
  const name = qualified(outbox.schema, outbox.table);
  const seq = quoteIdentifier(outbox.columns.seq);
  const sequence = qualified(outbox.schema, derivedName(outbox.table, '_seq'));
  // A partitioned table's unique index would have to contain the partition key.
  const index = table.partitioned ? 'index' : 'unique index';
  return [
    `create sequence if not exists ${sequence} as bigint cache 1`,
    `alter table ${name} add column ${seq} bigint`,
    `update ${name} as o set ${seq} = n.number
  from (select tableoid as part, ctid as place, row_number() over (order by ${existingOrder(outbox, table)}) as number
          from ${name}) as n
 where o.tableoid = n.part and o.ctid = n.place`,
    `select setval(${quoteLiteral(sequence)}, (select coalesce(max(${seq}), 0) + 1 from ${name}), false)`,
    `alter table ${name} alter column ${seq} set default nextval(${quoteLiteral(sequence)}), alter column ${seq} set not null`,
    `create ${index} if not exists ${quoteIdentifier(derivedName(outbox.table, '_seq_key'))} on ${name} (${seq})`,
    `alter sequence ${sequence} owned by ${name}.${seq}`,
  ];
}

function existingOrder(outbox: OutboxConfig, table: OutboxTable): string {
  const { id, createdAt } = outbox.columns;
  if (['smallint', 'integer', 'bigint'].includes(table.columns.get(id) ?? '')) return quoteIdentifier(id);
  return table.columns.has(createdAt) ? `${quoteIdentifier(createdAt)}, tableoid, ctid` : 'tableoid, ctid';
}
