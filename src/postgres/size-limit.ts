import type { Client } from 'pg';
import type { Config, OutboxConfig } from '../config/config.ts';
import { derivedName, qualified, quoteIdentifier } from './identifier.ts';
import { readOutboxTable } from './outbox-table.ts';

/**
 * The statement that lets no row in whose payload the relay would park for its size; undefined: the payload has a check
 * already. Offered by `migrate` and never run unasked: it refuses what the application writes.
 */
export async function offerSizeLimit(
  client: Client,
  { outbox, maxEventBytes }: Pick<Config, 'outbox' | 'maxEventBytes'>,
): Promise<string | undefined> {
  const table = await readOutboxTable(client, outbox);
  const type = table ? table.columns.get(outbox.columns.payload) : 'jsonb';
  if (type === undefined) return undefined;
  const name = qualified(outbox.schema, outbox.table);
  const { rows } = await client.query(
    `select from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any(c.conkey)
      where c.conrelid = to_regclass($1) and c.contype = 'c' and a.attname = $2`,
    [name, outbox.columns.payload],
  );
  if (rows.length > 0) return undefined;
  const constraint = quoteIdentifier(derivedName(outbox.table, '_payload_size'));
  return `alter table ${name} add constraint ${constraint} check (${condition(outbox, type, maxEventBytes)}) not valid;`;
}

/** Neither text nor bytea is read for its length; a bytea is counted in the hex form that a stream has it in. */
function condition({ columns }: OutboxConfig, type: string, maxBytes: number): string {
  const payload = quoteIdentifier(columns.payload);
  if (type === 'bytea') return `octet_length(${payload}) <= ${Math.floor(maxBytes / 2)}`;
  return `octet_length(${payload}${type === 'text' ? '' : '::text'}) <= ${maxBytes}`;
}
