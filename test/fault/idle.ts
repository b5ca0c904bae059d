import { setTimeout as sleep } from 'node:timers/promises';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import type { PostgresVersion } from '../../src/demo/services/postgres-binaries.ts';
import { withClient } from '../support/database.ts';
import { openOutbox } from '../support/outbox.ts';
import { RelayProcess } from '../support/relay-process.ts';

export interface IdleResult {
  /** Written to the log in all, bytes. */
  readonly writtenBytes: number;
  /** Kept for the slot, once a second, bytes. */
  readonly retainedBytes: readonly number[];
}

export interface IdleOptions {
  readonly seconds: number;
  readonly version?: PostgresVersion;
  /** Where the noise is: a table beside the outbox, another database of the server, or both in turn. */
  readonly noise: 'same-database' | 'other-database' | 'both';
  /** By itself the server notes the running transactions, from which on a slot needs the log, every 15 s. */
  readonly checkpointEveryMs?: number;
}

const SAMPLE_MS = 1_000;
/** A megabyte or so a statement. */
const NOISE = `insert into noise select repeat(md5(n::text), 30) from generate_series(1, 1000) n`;

/** An outbox in which nothing happens, on a server where much happens: what is kept for the relay's slot? */
export async function idleOutbox(options: IdleOptions): Promise<IdleResult> {
  const { version = 18, noise, seconds, checkpointEveryMs = Infinity } = options;
  const server = await startPostgres({
    version,
    settings: { max_wal_size: '256MB', log_checkpoints: 'off' },
  });
  const outbox = await openOutbox(server.url);
  const relay = RelayProcess.start({ env: { ...outbox.env, BROKER: 'stdout' } });
  try {
    await relay.waitForLine(/mode: streaming/);
    const noisy = {
      'same-database': [outbox.url],
      'other-database': [server.url],
      both: [outbox.url, server.url],
    }[noise];
    for (const url of noisy)
      await withClient(url, async (client) => await client.query('create table noise (text text)'));
    const retainedBytes: number[] = [];
    const before = await endOfLog(server.url);
    const startMs = performance.now();
    let checkpointMs = startMs;
    while (performance.now() - startMs < seconds * 1000) {
      for (const url of noisy) await withClient(url, async (client) => await client.query(NOISE));
      if (performance.now() - checkpointMs > checkpointEveryMs) {
        checkpointMs = performance.now();
        await withClient(server.url, async (client) => await client.query('checkpoint'));
      }
      retainedBytes.push(await retained(server.url, outbox.name));
      await sleep(SAMPLE_MS);
    }
    return { writtenBytes: (await endOfLog(server.url)) - before, retainedBytes };
  } finally {
    await relay.destroy();
    await outbox.drop();
    await server.remove();
  }
}

async function endOfLog(url: string): Promise<number> {
  return await number(url, `select pg_current_wal_lsn() - '0/0'`, []);
}

async function retained(url: string, slot: string): Promise<number> {
  const sql = 'select pg_current_wal_lsn() - restart_lsn from pg_replication_slots where slot_name = $1';
  return await number(url, sql, [slot]);
}

async function number(url: string, sql: string, values: readonly string[]): Promise<number> {
  return await withClient(url, async (client) => {
    const { rows } = await client.query<unknown[]>({ text: sql, values: [...values], rowMode: 'array' });
    return Number(rows[0]?.[0]);
  });
}
