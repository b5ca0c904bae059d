import { Client } from 'pg';
import { uniqueName } from './names.ts';
import { postgresService } from './services.ts';
import { until } from './until.ts';

export interface FreshDatabase {
  /** Superuser's URL of this database. */
  readonly url: string;
  readonly name: string;
  /** Drops its replication slots, ends its connections, drops it. */
  readonly drop: () => Promise<void>;
}

/** A database of its own, on the shared server or on the one whose superuser URL is given. */
export async function freshDatabase(serverUrl?: string): Promise<FreshDatabase> {
  const server = serverUrl ?? (await postgresService()).url;
  const name = uniqueName('test');
  await withClient(server, async (client) => await client.query(`CREATE DATABASE ${name}`));
  const url = new URL(server);
  url.pathname = `/${name}`;
  return { url: url.href, name, drop: async () => await dropDatabase(server, name) };
}

/** Connects, runs `action`, and disconnects whatever happens. */
export async function withClient<T>(url: string, action: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url });
  // A server that is stopped under an idle client must fail the next query, not the whole process.
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await action(client);
  } finally {
    await client.end();
  }
}

async function dropDatabase(server: string, name: string): Promise<void> {
  await withClient(server, async (client) => {
    // A database with slots can't be dropped, and a slot in use can't either.
    await until(async () => await dropSlots(client, name), { what: `the slots of ${name} to be dropped` });
    await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  });
}

async function dropSlots(client: Client, database: string): Promise<boolean> {
  const slots = `SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = $1`;
  await client.query(
    `SELECT pg_terminate_backend(active_pid) FROM (${slots}) s WHERE active_pid IS NOT NULL`,
    [database],
  );
  await client.query(
    `SELECT pg_drop_replication_slot(slot_name) FROM (${slots}) s WHERE active_pid IS NULL`,
    [database],
  );
  const left = await client.query(slots, [database]);
  return left.rowCount === 0;
}
