import { readFileSync, rmSync } from 'node:fs';
import type { Client } from 'pg';
import { until } from '../support/until.ts';
import type { Replica } from './random/fleet.ts';

/** What one relay holds. `heldBytes`: heap and buffers after a garbage collection. */
export interface Probe {
  readonly pid: number;
  readonly rssBytes: number;
  readonly heldBytes: number;
  readonly descriptors: number;
  readonly sockets: number;
  /** What keeps its event loop running, timers apart. */
  readonly handles: number;
  readonly timers: number;
}

/** Asks a relay that runs `soak-relay.ts`; it may be in the middle of its start. */
export async function probe(replica: Replica, file: string): Promise<Probe> {
  rmSync(file, { force: true });
  return await until(
    () => {
      replica.signal('SIGWINCH');
      return JSON.parse(readFileSync(file, 'utf8')) as Probe;
    },
    { what: 'a relay to tell what it holds', timeoutMs: 30_000, intervalMs: 200 },
  );
}

/** Of the database and of the slot; sizes in bytes, tables with their indexes. */
export interface DatabaseReading {
  readonly outboxBytes: number;
  readonly relayTablesBytes: number;
  readonly databaseBytes: number;
  /** Connections of the relays. */
  readonly backends: number;
  readonly retainedBytes: number;
  /** Process that holds the lease. */
  readonly leaderPid: number;
}

const READ = `select pg_total_relation_size('outbox') as "outboxBytes",
  (select sum(pg_total_relation_size(oid)) from pg_class where relkind = 'r' and starts_with(relname, 'outbox_relay_')) as "relayTablesBytes",
  pg_database_size(current_database()) as "databaseBytes",
  (select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
    and backend_type in ('client backend', 'walsender')) as backends,
  coalesce((select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) from pg_replication_slots where slot_name = $1), 0) as "retainedBytes",
  (select split_part(holder, '/', 4) from outbox_relay_lease where slot_name = $1) as "leaderPid"`;

export async function readDatabase(client: Client, slotName: string): Promise<DatabaseReading> {
  const { rows } = await client.query<Record<keyof DatabaseReading, string>>(READ, [slotName]);
  const [row] = rows;
  if (row === undefined) throw new Error('the database told nothing');
  return {
    outboxBytes: Number(row.outboxBytes),
    relayTablesBytes: Number(row.relayTablesBytes),
    databaseBytes: Number(row.databaseBytes),
    backends: Number(row.backends),
    retainedBytes: Number(row.retainedBytes),
    leaderPid: Number(row.leaderPid),
  };
}
