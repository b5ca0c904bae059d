import type { Client } from 'pg';
import { parseLsn } from './lsn.ts';

/** Empty on a standby. Eight hexadecimal digits. */
export async function readTimeline(client: Client): Promise<string> {
  const { rows } = await client.query<{ timeline: string }>(
    `select case when pg_is_in_recovery() then ''
            else substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end as timeline`,
  );
  return rows[0]?.timeline ?? '';
}

/**
 * Names this server, database and slot towards others, who know nothing of PostgreSQL: the same for every relay of the
 * outbox and after a failover, another one for another outbox. Undefined: this role may not ask for the server's identity.
 */
export async function readInstallation(client: Client, slotName: string): Promise<string | undefined> {
  const { rows } = await client
    .query<{ server: string; database: string }>(
      'select system_identifier::text as server, current_database() as database from pg_control_system()',
    )
    .catch(() => ({ rows: [] }));
  const [row] = rows;
  return row && `${row.server}.${row.database}.${slotName}`;
}

/** Everything written before now lies below it. */
export async function readEndOfLog(client: Client): Promise<bigint> {
  const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
  return parseLsn((rows[0] as { lsn: string }).lsn);
}

/** How far the log goes, and how far it is on disk. */
export interface LogEnds {
  readonly inserted: bigint;
  readonly flushed: bigint;
}

/** Columns for `parseLogEnds`. */
export const LOG_ENDS = `pg_current_wal_insert_lsn()::text as inserted, pg_current_wal_flush_lsn()::text as flushed`;

export function parseLogEnds({ inserted, flushed }: { inserted: string; flushed: string }): LogEnds {
  return { inserted: parseLsn(inserted), flushed: parseLsn(flushed) };
}

export async function readLogEnds(client: Client): Promise<LogEnds> {
  const { rows } = await client.query<{ inserted: string; flushed: string }>(`select ${LOG_ENDS}`);
  return parseLogEnds(rows[0] as { inserted: string; flushed: string });
}
