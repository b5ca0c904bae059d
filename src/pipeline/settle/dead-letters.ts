import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { readColumns, type Column } from '../../postgres/columns.ts';
import { qualified, quoteIdentifier, quoteLiteral } from '../../postgres/identifier.ts';
import { rowKey } from '../../postgres/row-key.ts';
import { parseSnapshot, sees } from '../../postgres/snapshot.ts';
import { isUnmarked } from '../../postgres/undelivered.ts';
import { BYTEA_OID } from '../capture/bytea.ts';
import { rowBytes, type OutboxEvent } from '../capture/event.ts';
import type { Settled } from './settlement.ts';

/** `gone`: the application has deleted the row. `unseen`: its commit is not visible yet. */
export type ParkedFromTable = 'parked' | 'gone' | 'unseen';

/** From here on a row is parked by the database itself, and a value gets a row of its own: jsonb ends at 256 MiB. */
const LARGE_BYTES = 16 * 1_048_576;
/** Stored so small, jsonb can't print more than a few hundred MiB (numbers of 131,072 digits, compressed). */
const SMALL_JSONB_BYTES = 256;
const JSONB_OID = 3802;

/** Whether the row is better moved inside the database: it is not here, or too large for a parameter. */
export function isGiant(event: OutboxEvent): boolean {
  return event.leftInTableBytes !== undefined || event.sizeBytes > LARGE_BYTES;
}

/** One dead letter as the statement that settles takes it; values are the row's texts, as far as they are here. */
export function deadLetterOf(config: Config, { event, parked }: Settled): Record<string, unknown> {
  const { row } = event;
  const gone = event.leftInTableBytes ?? 0;
  const reason = gone > 0 ? `; the row was deleted, and with it values of ${gone} bytes` : '';
  return {
    event_id: row.text(config.outbox.columns.id) ?? null,
    seq: event.seq,
    xid: event.xid,
    destination: parked?.destination ?? null,
    key: parked?.key ?? null,
    code: parked?.code,
    reason: printable(`${parked?.reason ?? ''}${reason}`),
    attempts: parked?.attempts,
    row: Object.fromEntries(row.columns.map((column) => [column, row.text(column) ?? null])),
  };
}

/** What every database can store: a quotation may have been cut in the middle of a character. */
function printable(text: string): string {
  return text.toWellFormed().replaceAll(/[\0\ufffd]/gu, '?');
}

/**
 * Parks one row without its values ever leaving the database, and removes it, in one statement. A value that is large
 * goes to `outbox_relay_dead_letter_values` as it is stored, neither printed nor compressed again. Repeating it is
 * harmless.
 */
export async function parkFromTable(
  client: Client,
  config: Config,
  { event, parked }: Settled,
): Promise<ParkedFromTable> {
  const { outbox, slotName } = config;
  const table = qualified(outbox.schema, outbox.table);
  const { rows } = await client.query<{ found: string; snapshot: string }>(
    statement(config, await readColumns(client, table)),
    [
      slotName,
      event.seq,
      event.xid,
      parked?.destination ?? null,
      parked?.key ?? null,
      parked?.code,
      parked && printable(parked.reason),
      parked?.attempts,
      rowBytes(event) > LARGE_BYTES,
    ],
  );
  const [row] = rows as [{ found: string; snapshot: string }];
  if (row.found === 'true') return 'parked';
  return isVisible(event, row.snapshot) ? 'gone' : 'unseen';
}

function statement(config: Config, columns: readonly Column[]): string {
  const { outbox } = config;
  const table = qualified(outbox.schema, outbox.table);
  const letters = qualified(outbox.schema, 'outbox_relay_dead_letters');
  const { among, xid } = rowKey(outbox);
  const isRow = `${among('array[$2::bigint]')} and ${xid} = $3::text::xid8`;
  const names = columns.map(({ name }) => quoteLiteral(name)).join(', ');
  const texts = columns.map((column) => `case when not ${isLarge(column)} then ${valueOf(column)}::text end`);
  const values = columns.filter(({ fixed }) => !fixed).map((column) => `(${valueRow(column)})`);
  return `with parked as (
      insert into ${letters} (slot_name, event_id, seq, xid, destination, key, code, reason, attempts, "row")
      select $1, o.${quoteIdentifier(outbox.columns.id)}::text, $2, $3::bigint, $4, $5, $6, $7, $8,
             jsonb_object(array[${names}], array[${texts.join(', ')}])
        from ${table} o where ${isRow} limit 1
      on conflict (seq, xid, slot_name) do update set reason = excluded.reason, "row" = excluded."row" returning number),
    kept as (
      insert into ${qualified(outbox.schema, 'outbox_relay_dead_letter_values')}
             (dead_letter, column_name, as_bytea, as_jsonb, as_text)
      select p.number, v.column_name, v.as_bytea, v.as_jsonb, v.as_text
        from parked p, ${table} o,
             lateral (values ${values.join(', ')}) as v(column_name, large, as_bytea, as_jsonb, as_text)
       where ${isRow} and v.large
      on conflict do nothing),
    removed as (${removal(config, table, isRow)})
    select (exists (select from ${table} o where ${isRow}) or exists (
              select from ${letters} where slot_name = $1 and seq = $2 and xid = $3::bigint))::text as found,
           pg_current_snapshot()::text as snapshot`;
}

function valueOf({ name }: Column): string {
  return `o.${quoteIdentifier(name)}`;
}

/** Never NULL. Nothing is printed to find out whose text form is known to be small, or can't be made. */
function isLarge(column: Column): string {
  const value = valueOf(column);
  if (column.fixed) return 'false';
  if (column.oid === BYTEA_OID) return `coalesce(octet_length(${value}) > ${LARGE_BYTES / 2}, false)`;
  const size =
    column.oid === JSONB_OID
      ? `pg_column_size(${value}) > ${SMALL_JSONB_BYTES}`
      : `octet_length(${value}::text) > ${LARGE_BYTES}`;
  return `($9 and coalesce(${size}, false))`;
}

function valueRow(column: Column): string {
  const value = valueOf(column);
  const form = column.oid === BYTEA_OID ? 0 : column.oid === JSONB_OID ? 1 : 2;
  const forms = ['null::bytea', 'null::jsonb', 'null::text'].with(
    form,
    form === 2 ? `${value}::text` : value,
  );
  return `${quoteLiteral(column.name)}, ${isLarge(column)}, ${forms.join(', ')}`;
}

function removal({ cleanup, outbox }: Config, table: string, isRow: string): string {
  if (cleanup === 'none') return 'select 1';
  if (cleanup === 'delete') return `delete from ${table} o where ${isRow}`;
  const delivered = quoteIdentifier(outbox.columns.deliveredAt);
  return `update ${table} o set ${delivered} = clock_timestamp() where ${isRow} and ${isUnmarked(outbox)}`;
}

/** A row from another server's dump carries an id that means nothing here; the stream says which transaction wrote it. */
function isVisible({ transaction }: OutboxEvent, text: string): boolean {
  if (transaction.xid === undefined) return true;
  const snapshot = parseSnapshot(text);
  const epoch = snapshot.xmax - (snapshot.xmax % 2 ** 32);
  const xid = epoch + transaction.xid;
  // Half the range ahead of now is behind now, in the epoch before.
  return sees(snapshot, xid - snapshot.xmax > 2 ** 31 ? xid - 2 ** 32 : xid);
}
