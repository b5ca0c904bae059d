import type { Client } from 'pg';
import { RelayError } from '../errors/errors.ts';
import { qualified, quoteIdentifier } from './identifier.ts';
import { OURS } from './publication.ts';

/**
 * Throws RelayError('stop') when a function with one of these signatures is somebody else's: `create or replace` would
 * replace it in silence. `signature` is the argument types as `to_regprocedure` takes them.
 */
export async function refuseForeignFunctions(
  client: Client,
  schema: string,
  functions: readonly { readonly name: string; readonly signature: string }[],
): Promise<void> {
  for (const { name, signature } of functions) {
    const full = `${qualified(schema, name)}(${signature})`;
    const found = await client.query(
      `select from pg_proc where oid = to_regprocedure($1) and coalesce(obj_description(oid, 'pg_proc'), '') <> $2`,
      [full, OURS],
    );
    if (found.rows.length > 0) throw taken('function', full);
  }
}

/** The same for the sequence of a table that is to get one: our own would have been dropped with its column. */
export async function refuseForeignSequence(client: Client, schema: string, name: string): Promise<void> {
  const full = qualified(schema, name);
  const found = await client.query<{ found: string | null }>('select to_regclass($1) as found', [full]);
  if (found.rows[0]?.found != null) throw taken('sequence', full);
}

function taken(what: 'function' | 'sequence', name: string): RelayError {
  const message = `${what} ${name} exists and was not made by "migrate"`;
  const advice = `Rename it (ALTER ${what.toUpperCase()} ${name} RENAME TO ${quoteIdentifier('…')};) or drop it, or choose another schema or name with OUTBOX_TABLE.`;
  return new RelayError('stop', 'name-taken', message, { advice });
}
