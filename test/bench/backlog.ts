import { Client } from 'pg';
import { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

/** A database with the relay's tables, a slot that is trusted, and a backlog of single-row transactions in the WAL. */
export interface Backlog {
  readonly url: string;
  readonly name: string;
  drop(): Promise<void>;
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
  const name = `bench_${Date.now().toString(36)}`;
  await query(serverUrl, `create database ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const env = {
    DATABASE_URL: url.href,
    SLOT_NAME: name,
    HTTP_HOST: '127.0.0.1',
    HTTP_PORT: '0',
    ...options.env,
  };
  if (options.prepare) await query(url.href, options.prepare);
  const adopt = options.prepare ? ['--adopt'] : [];
  await RelayProcess.start({ args: ['migrate', ...adopt], env }).exit;
  const first = RelayProcess.start({ env });
  await first.waitForLine(options.env['SOURCE'] === 'polling' ? /mode: polling/ : /mode: streaming/);
  first.kill('SIGTERM');
  await first.exit;
  await insertEvents(url.href, options);
  return {
    url: url.href,
    name,
    drop: async () => {
      await until(
        async () => {
          await query(
            serverUrl,
            `select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '${name}'`,
          );
          return true;
        },
        { what: 'the slot to be dropped' },
      );
      await query(serverUrl, `drop database ${name} with (force)`);
    },
  };
}

export async function insertEvents(url: string, options: { events: number; keys: number }): Promise<void> {
  await query(
    url,
    `set synchronous_commit = off;
     create procedure fill(events int, keys int) language plpgsql as $$
     begin
       for i in 1..events loop
         insert into outbox (aggregatetype, aggregateid, type, payload)
         values ('bench', 'key-' || (i::bigint * 7919) % keys, 'Filled',
                 jsonb_build_object('n', i, 'fill', repeat('x', 270)));
         commit;
       end loop;
     end $$`,
  );
  await query(url, `call fill(${options.events}, ${options.keys})`, 'off');
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
