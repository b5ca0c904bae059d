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
  /** In how many seconds the most of them was written. */
  readonly mostSeconds: number;
}

export interface IdleOptions {
  readonly seconds: number;
  readonly version?: PostgresVersion;
  /** Where the noise is: a table beside the outbox, another database of the server, or both in turn. */
  readonly noise: 'same-database' | 'other-database' | 'both';
  /** By itself the server notes the running transactions, from which on a slot needs the log, every 15 s. */
  readonly checkpointEveryMs?: number;
  /** Statements a second, each in every noisy database; each writes a good half of a megabyte. */
  readonly intensity?: number;
}

const SAMPLE_MS = 1_000;
const NOISE = `insert into noise select repeat(md5(n::text), 30) from generate_series(1, 500) n`;

/** An outbox in which nothing happens, on a server where much happens: what is kept for the relay's slot? */
export async function idleOutbox(options: IdleOptions): Promise<IdleResult> {
  const { version = 18, noise, seconds, checkpointEveryMs = Infinity, intensity = 1 } = options;
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
    const samples: { atMs: number; endBytes: number; retainedBytes: number }[] = [];
    const startMs = performance.now();
    let checkpointMs = startMs;
    while (performance.now() - startMs < seconds * 1000) {
      for (const url of noisy)
        await withClient(url, async (client) => {
          for (let statement = 0; statement < intensity; statement++) await client.query(NOISE);
        });
      if (performance.now() - checkpointMs > checkpointEveryMs) {
        checkpointMs = performance.now();
        await withClient(server.url, async (client) => await client.query('checkpoint'));
      }
      samples.push({ atMs: performance.now(), ...(await readLog(server.url, outbox.name)) });
      // The noise comes steadily: how long it goes on is what is being tested.
      await sleep(SAMPLE_MS);
    }
    const [first, last] = [samples[0], samples.at(-1)];
    return {
      writtenBytes: (last?.endBytes ?? 0) - (first?.endBytes ?? 0),
      retainedBytes: samples.map((sample) => sample.retainedBytes),
      mostSeconds: Math.max(
        ...samples.map(({ atMs, endBytes, retainedBytes }) => {
          const needed = samples.findLast((earlier) => earlier.endBytes <= endBytes - retainedBytes);
          return (atMs - (needed?.atMs ?? startMs)) / 1000;
        }),
      ),
    };
  } finally {
    await relay.destroy();
    await outbox.drop();
    await server.remove();
  }
}

async function readLog(url: string, slot: string): Promise<{ endBytes: number; retainedBytes: number }> {
  return await withClient(url, async (client) => {
    const { rows } = await client.query<{ end: string; retained: string }>(
      `select pg_current_wal_lsn() - '0/0' as end, pg_current_wal_lsn() - restart_lsn as retained
         from pg_replication_slots where slot_name = $1`,
      [slot],
    );
    return { endBytes: Number(rows[0]?.end), retainedBytes: Number(rows[0]?.retained) };
  });
}
