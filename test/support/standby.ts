import { execFileSync } from 'node:child_process';
import { appendFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import type { PostgresVersion } from '../../src/demo/services/postgres-binaries.ts';
import { withClient } from './database.ts';
import { Proxy } from './proxy.ts';
import { until } from './until.ts';

/** Physical slot of the standby on its primary. */
const STANDBY_SLOT = 'standby';

export interface Pair {
  readonly primary: PostgresServer;
  readonly standby: PostgresServer;
  /** Where clients connect: forwards to the primary, after a failover to the standby. */
  readonly front: Proxy;
  /** Between the two servers. */
  readonly replication: Proxy;
  /** Superuser's URL by way of `front`. */
  readonly url: string;
  /** The primary crashes, the standby is promoted and takes its place. */
  failOver(): Promise<void>;
  remove(): Promise<void>;
}

/** A primary with a physical standby that streams from it: same system, another timeline once it is promoted. */
export async function startPair(options: {
  version?: PostgresVersion;
  primary?: Readonly<Record<string, string>>;
  standby?: Readonly<Record<string, string>>;
}): Promise<Pair> {
  const { version = 18 } = options;
  const [primary, standby] = await Promise.all([
    startPostgres({ version, settings: { wal_keep_size: '256MB', ...options.primary } }),
    startPostgres({ version }),
  ]);
  await withClient(primary.url, async (client) => {
    await client.query('select pg_create_physical_replication_slot($1, true)', [STANDBY_SLOT]);
  });
  const replication = await Proxy.start(`127.0.0.1:${primary.port}`);
  await Promise.all([primary.stop(), standby.stop()]);
  copyCluster(primary, standby, {
    ...options.standby,
    primary_conninfo: `host=127.0.0.1 port=${replication.port} user=postgres dbname=postgres`,
    primary_slot_name: STANDBY_SLOT,
    hot_standby_feedback: 'on',
  });
  await primary.start();
  await standby.start();
  const front = await Proxy.start(`127.0.0.1:${primary.port}`);
  return {
    primary,
    standby,
    front,
    replication,
    url: front.url(primary.url),
    failOver: async () => {
      await primary.stop('immediate');
      front.forwardTo(`127.0.0.1:${standby.port}`);
      front.cut();
      await withClient(standby.url, async (client) => await client.query('select pg_promote()'));
    },
    remove: async () => {
      await Promise.all([front.close(), replication.close()]);
      await Promise.all([primary.remove(), standby.remove()]);
    },
  };
}

/** A copy made while both are down: the binaries for tests come without pg_basebackup. */
function copyCluster(from: PostgresServer, to: PostgresServer, settings: Record<string, string>): void {
  rmSync(to.dataDir, { recursive: true });
  execFileSync('cp', ['-a', from.dataDir, to.dataDir]);
  writeFileSync(join(to.dataDir, 'standby.signal'), '');
  const lines = Object.entries({ ...settings, port: String(to.port) }).map(
    ([name, value]) => `${name} = '${value}'\n`,
  );
  // The last line about a setting counts.
  appendFileSync(join(to.dataDir, 'postgresql.auto.conf'), lines.join(''));
}

/** Waits until the standby has replayed what the primary has now. */
export async function caughtUp({ primary, standby }: Pair): Promise<void> {
  const end = await withClient(primary.url, async (client) => {
    const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
    return rows[0]?.lsn;
  });
  await until(
    async () =>
      await withClient(standby.url, async (client) => {
        const { rows } = await client.query<{ there: boolean }>(
          'select pg_last_wal_replay_lsn() >= $1::pg_lsn as there',
          [end],
        );
        return rows[0]?.there;
      }),
    { what: 'the standby to catch up' },
  );
}
