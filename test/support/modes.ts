import assert from 'node:assert/strict';
import { withClient } from './database.ts';
import { uniqueName } from './names.ts';
import type { RelayProcess } from './relay-process.ts';
import { until } from './until.ts';

export interface ModeChange {
  readonly mode: string;
  readonly reason: string;
}

/** Every change of mode that the relay has logged, oldest first. */
export function modeChanges(relay: RelayProcess): ModeChange[] {
  return [...relay.stdout, ...relay.stderr]
    .filter((line) => line.startsWith('{') && line.includes('"message":"mode: '))
    .map((line) => {
      const { message, reason } = JSON.parse(line) as { message: string; reason: string };
      return { mode: message.replace('mode: ', ''), reason };
    });
}

/** How often the relay has begun to stream. */
export function streamings(relay: RelayProcess): number {
  return modeChanges(relay).filter(({ mode }) => mode === 'streaming').length;
}

/** Waits until the relay has begun to stream for the `count`th time. */
export async function streamedTimes(relay: RelayProcess, count: number, timeoutMs = 30_000): Promise<void> {
  const what = `streaming to begin ${count} times`;
  await until(() => streamings(relay) >= count, { what, timeoutMs }).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${relay.output}`, { cause: error });
  });
}

/** Ids of the events that a relay with BROKER=stdout has delivered, in that order. */
export function printedIds(relay: RelayProcess): string[] {
  return relay.stdout.map((line) => (JSON.parse(line) as { id: string }).id);
}

/** Sends SIGTERM and waits for a complete drain. Until then it was ready all the time. */
export async function terminated(relay: RelayProcess): Promise<void> {
  assert.deepEqual(relay.ready.refusals, [], relay.output);
  relay.kill('SIGTERM');
  assert.deepEqual(await relay.exit, { code: 0, signal: null }, relay.output);
}

/** Slots of this database, whatever their names. */
export async function slotsOf(databaseUrl: string): Promise<string[]> {
  return await withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<{ name: string }>(
      'select slot_name as name from pg_replication_slots where database = current_database()',
    );
    return rows.map(({ name }) => name);
  });
}

/** Rows that are not delivered, with CLEANUP=delete and mark alike. */
export async function undelivered(databaseUrl: string): Promise<number> {
  return await withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<{ count: string }>(
      'select count(*) from outbox where delivered_at is null',
    );
    return Number(rows[0]?.count);
  });
}

/** Waits until every committed row is delivered. */
export async function settled(databaseUrl: string, timeoutMs = 60_000): Promise<void> {
  const what = 'every row to be delivered';
  await until(async () => (await undelivered(databaseUrl)) === 0, { timeoutMs, what });
}

/** A role that may do with the relay's tables what it must, and has no REPLICATION. Drop the database first. */
export async function roleWithoutReplication(
  databaseUrl: string,
): Promise<{ url: string; drop: (serverUrl: string) => Promise<void> }> {
  const name = uniqueName('role');
  await withClient(databaseUrl, async (client) => {
    await client.query(`create role ${name} login password 'plain'`);
    await client.query(`grant usage on schema public to ${name}`);
    await client.query(
      `grant select, insert, update, delete on all tables in schema public to ${name};
       grant usage on all sequences in schema public to ${name}`,
    );
  });
  const url = new URL(databaseUrl);
  url.username = name;
  url.password = 'plain';
  return {
    url: url.href,
    drop: async (serverUrl) => {
      await withClient(serverUrl, async (client) => await client.query(`drop role ${name}`));
    },
  };
}
