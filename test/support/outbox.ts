import { freshDatabase, withClient } from './database.ts';
import { migrateByEnv } from './migrated.ts';
import { until } from './until.ts';

export interface DeadLetter {
  readonly eventId: string;
  readonly code: string;
  readonly reason: string;
  readonly attempts: number;
  readonly destination: string | null;
  /** Column → text form: the complete row. */
  readonly row: Readonly<Record<string, string | null>>;
}

/** A database with a migrated outbox, for tests that write their few events themselves. */
export interface Outbox {
  /** Superuser's. */
  readonly url: string;
  readonly name: string;
  /** The relay's variables, without a broker. */
  readonly env: Readonly<Record<string, string>>;
  /** SQL as superuser; rows as text. */
  sql(text: string, values?: readonly unknown[]): Promise<Record<string, string | null>[]>;
  /** Commits one event and returns its id. */
  emit(aggregateType: string, key: string, payload: unknown): Promise<string>;
  deadLetters(): Promise<DeadLetter[]>;
  /** The outbox is empty: everything is delivered or parked. */
  drained(timeoutMs?: number): Promise<void>;
  drop(): Promise<void>;
}

export async function openOutbox(serverUrl?: string): Promise<Outbox> {
  const { url, name, drop } = await freshDatabase(serverUrl);
  const env = { DATABASE_URL: url, SLOT_NAME: name, HTTP_HOST: '127.0.0.1', HTTP_PORT: '0' };
  await migrateByEnv(env);
  const sql: Outbox['sql'] = async (text, values = []) =>
    await withClient(url, async (client) => (await client.query(text, [...values])).rows);
  return {
    url,
    name,
    env,
    sql,
    emit: async (aggregateType, key, payload) => {
      const values = [aggregateType, key, JSON.stringify(payload)];
      const rows = await sql(`select outbox_emit($1, $2, 'Happened', $3::jsonb)::text as id`, values);
      return rows[0]?.['id'] ?? '';
    },
    deadLetters: async () => {
      const rows = await sql(
        `select event_id, code, reason, attempts::text as attempts, destination, "row"::text as complete
           from outbox_relay_dead_letters order by number`,
      );
      return rows.map((row) => ({
        eventId: row['event_id'] ?? '',
        code: row['code'] ?? '',
        reason: row['reason'] ?? '',
        attempts: Number(row['attempts']),
        destination: row['destination'] ?? null,
        row: JSON.parse(row['complete'] ?? '{}') as Record<string, string | null>,
      }));
    },
    drained: async (timeoutMs = 30_000) => {
      await until(async () => await isEmpty(sql), { timeoutMs, what: 'the outbox to be empty' });
    },
    drop,
  };
}

async function isEmpty(sql: Outbox['sql']): Promise<boolean> {
  const [row] = await sql('select count(*)::text as waiting from outbox');
  return row?.['waiting'] === '0';
}

/**
 * Commits one event that everybody sees while the log of the commit is only in memory: on a server whose
 * `wal_writer_delay` is long, a crash takes it back, unless the server happened to write its log before.
 */
export async function emitInMemory(outbox: Outbox): Promise<{
  id: string;
  /** After the crash: the server has it still. Asked of a table of its own, the relay deletes what it delivers. */
  survived: () => Promise<boolean>;
}> {
  await outbox.sql('create table if not exists emitted (id uuid)');
  const id = await withClient(outbox.url, async (client) => {
    await client.query('set synchronous_commit = off');
    const { rows } = await client.query<{ id: string }>(
      `with event as (select outbox_emit('thing', 'a', 'Happened', '"in memory"') as id)
       insert into emitted select id from event returning id::text`,
    );
    return rows[0]?.id ?? '';
  });
  const survived = async (): Promise<boolean> =>
    (await outbox.sql('select 1 from emitted where id = $1', [id])).length > 0;
  return { id, survived };
}
