import type { Client } from 'pg';
import type { OutboxConfig } from '../config/config.ts';
import { derivedName, qualified, quoteIdentifier } from './identifier.ts';
import type { OutboxTable } from './outbox-table.ts';
import { isUnmarked } from './undelivered.ts';

export interface IndexPlan {
  readonly statements: readonly string[];
  /** Keeps no writer out, but must not run in a transaction. */
  readonly concurrently: boolean;
}

/**
 * What makes the index of undelivered rows, or undefined when it is there. Only rows that are kept after delivery make
 * it worth its cost; with `delete` the primary key is as good.
 */
export async function planUndeliveredIndex(
  client: Client,
  outbox: OutboxConfig,
  table: OutboxTable | undefined,
): Promise<IndexPlan | undefined> {
  const { seq } = outbox.columns;
  const name = derivedName(outbox.table, '_undelivered');
  const full = qualified(outbox.schema, name);
  const state = await readState(client, full, qualified(outbox.schema, outbox.table));
  // One that another process is just building is invalid as well: dropping waits for it and costs its work, no more.
  const left = state.exists && !state.valid;
  if (state.exists && !left) return undefined;
  // Not possible on a partitioned table; without rows there is nothing to wait for.
  const concurrently = table !== undefined && !table.partitioned && (left || state.bytes > 0);
  const word = concurrently ? ' concurrently' : '';
  const statements = [
    `create index${word} ${quoteIdentifier(name)} on ${qualified(outbox.schema, outbox.table)} ` +
      `(${quoteIdentifier(seq)}) where ${isUnmarked(outbox)}`,
  ];
  // An interrupted build leaves its name behind.
  if (left) statements.unshift(`drop index${word} if exists ${full}`);
  return { statements, concurrently };
}

async function readState(
  client: Client,
  index: string,
  table: string,
): Promise<{ exists: boolean; valid: boolean; bytes: number }> {
  const { rows } = await client.query<{ valid: string | null; bytes: string | null }>(
    `select (select indisvalid::text from pg_index where indexrelid = to_regclass($1)) as valid,
            pg_relation_size(to_regclass($2))::text as bytes`,
    [index, table],
  );
  const row = rows[0];
  return { exists: row?.valid != null, valid: row?.valid === 'true', bytes: Number(row?.bytes ?? 0) };
}

/** One statement at a time, outside a transaction, for as long as it takes: it waits for every older transaction. */
export async function runConcurrently(
  client: Client,
  plan: IndexPlan,
  queryTimeoutMs: number,
): Promise<void> {
  await client.query('set statement_timeout = 0; set lock_timeout = 0');
  try {
    for (const text of plan.statements) {
      // The driver's own deadline is missing in its types for a single query.
      const query = { text, query_timeout: queryTimeoutMs };
      await client.query(query);
    }
  } finally {
    await client.query('reset statement_timeout; reset lock_timeout').catch(() => undefined);
  }
}
