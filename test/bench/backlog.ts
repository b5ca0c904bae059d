import { Client } from 'pg';
import { uniqueName } from '../support/names.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

/** A database with the relay's tables, a slot that is trusted, and a backlog of single-row transactions in the WAL. */
export interface Backlog {
  readonly url: string;
  readonly name: string;
  drop(): Promise<void>;
}

/** A database with the relay's tables, and nothing that reads it yet. `prepare`: SQL that makes the outbox otherwise. */
export async function createDatabase(serverUrl: string, prepare?: string): Promise<Backlog> {
  const name = uniqueName('bench');
  await query(serverUrl, `create database ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  if (prepare) await query(url.href, prepare);
  const args = ['migrate', ...(prepare ? ['--adopt'] : [])];
  await RelayProcess.start({ args, env: { DATABASE_URL: url.href, BROKER: 'stdout' } }).exit;
  return {
    url: url.href,
    name,
    drop: async () => {
      await until(async () => await dropSlots(serverUrl, name), { what: 'the slot to be dropped' });
      await query(serverUrl, `drop database ${name} with (force)`);
    },
  };
}

async function dropSlots(serverUrl: string, database: string): Promise<boolean> {
  await query(
    serverUrl,
    `select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '${database}'`,
  );
  return true;
}

/** Runs the relay once, so that slot and progress row exist. */
export async function prepareRelay(
  backlog: Backlog,
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  const env: Record<string, string> = {
    DATABASE_URL: backlog.url,
    SLOT_NAME: backlog.name,
    HTTP_HOST: '127.0.0.1',
    HTTP_PORT: '0',
    ...settings,
  };
  const first = RelayProcess.start({ env });
  await first.waitForLine(env['SOURCE'] === 'polling' ? /mode: polling/ : /mode: streaming/);
  first.kill('SIGTERM');
  await first.exit;
}

/**
 * One relay runs once so that slot and progress row exist; then the events are committed, one a transaction. 300 bytes
 * of jsonb as text, `keys` ordering keys, a number that grows with the commit order in every payload.
 */
export async function fillBacklog(
  serverUrl: string,
  options: {
    events: number;
    keys: number;
    env: Readonly<Record<string, string>>;
    /** SQL that makes the table, when it is not that of `migrate`. */
    prepare?: string;
  },
): Promise<Backlog> {
  const backlog = await createDatabase(serverUrl, options.prepare);
  await prepareRelay(backlog, options.env);
  await insertEvents(backlog.url, options);
  return backlog;
}

/** PostgreSQL compresses or moves a row out of its page from about so much on. */
const INLINE_BYTES = 2_000;

/**
 * Commits the numbers from `first` (1) on, one a transaction, with payloads of so many `bytes` (300). Several writers share the keys out, so that those of one
 * key still come in the order of the numbers.
 */
export async function insertEvents(
  url: string,
  {
    events,
    keys,
    first = 1,
    writers = 1,
    bytes = 300,
  }: { events: number; keys: number; first?: number; writers?: number; bytes?: number },
): Promise<void> {
  // What is repeated would be compressed to nothing, and the log would hold no large payload.
  if (bytes > INLINE_BYTES) await query(url, 'alter table outbox alter payload set storage external');
  await query(
    url,
    `create or replace procedure fill(first int, last int, keys int, writer int, writers int) language plpgsql as $$
     begin
       for i in first..last loop
         continue when i % keys % writers <> writer;
         insert into outbox (aggregatetype, aggregateid, type, payload)
         values ('bench', 'key-' || (i::bigint * 7919) % keys, 'Filled',
                 jsonb_build_object('n', i, 'fill', repeat('x', ${bytes - 30})));
         commit;
       end loop;
     end $$`,
  );
  const last = first + events - 1;
  await Promise.all(
    Array.from({ length: writers }, (_, writer) =>
      query(url, `call fill(${first}, ${last}, ${keys}, ${writer}, ${writers})`, 'off'),
    ),
  );
  await query(url, 'checkpoint');
}

export async function query(
  url: string,
  sql: string,
  synchronousCommit = 'on',
): Promise<Record<string, string>[]> {
  const client = new Client({ connectionString: url, options: `-c synchronous_commit=${synchronousCommit}` });
  await client.connect();
  try {
    const { rows } = await client.query<Record<string, string>>(sql);
    return rows;
  } finally {
    await client.end();
  }
}
