import { Client as PgClient, type Client, type ClientConfig, type QueryConfig } from 'pg';
import { setTimeout as sleep } from 'node:timers/promises';
import { RelayError } from '../../../errors/errors.ts';
import { classify } from '../../../errors/policy.ts';
import { parseLsn } from '../../../postgres/lsn.ts';

/** Of a command that has nobody to wait for: later than this the server, or the way to it, is gone. */
const COMMAND_TIMEOUT_MS = 30_000;

const CLOSE_DEADLINE_MS = 1_000;
const DROP_ATTEMPTS = 50;
const DROP_RETRY_MS = 100;

/** A replication slot as the server shows it. */
export interface Slot {
  readonly plugin: string;
  readonly slotType: string;
  readonly database: string;
  readonly activePid: number | undefined;
  readonly confirmedLsn: bigint | undefined;
  /** `reserved`, `extended`, `unreserved`, `lost`; `lost`: its WAL is gone. */
  readonly walStatus: string | undefined;
  /** PostgreSQL 17 and later: why it can't be used any more, e.g. `wal_removed` or `idle_timeout`. */
  readonly invalidationReason: string | undefined;
  /** Whether it follows the standbys; undefined before PostgreSQL 17, which has no such slots. */
  readonly failover: boolean | undefined;
  /** Of the log, kept for it. */
  readonly retainedBytes: number;
}

export interface SystemIdentity {
  readonly systemIdentifier: string;
  readonly timeline: number;
}

export interface CreatedSlot {
  /** Everything committed from here on is streamed; everything before is in the snapshot. */
  readonly createdLsn: bigint;
  /** Name of the exported snapshot; valid until the connection that made it is used again. */
  readonly snapshotName: string | undefined;
}

export async function readSlot(client: Client, slotName: string): Promise<Slot | undefined> {
  const { rows } = await client.query<Record<string, string | null>>(
    `select plugin, slot_type, database, active_pid, confirmed_flush_lsn, wal_status,
            pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) as retained,
            -- By way of JSON: earlier versions lack the columns.
            to_jsonb(s) ->> 'invalidation_reason' as invalidation_reason, to_jsonb(s) ->> 'failover' as failover
       from pg_replication_slots s where slot_name = $1`,
    [slotName],
  );
  const row = rows[0];
  if (!row) return undefined;
  return {
    plugin: row['plugin'] ?? '',
    slotType: row['slot_type'] ?? '',
    database: row['database'] ?? '',
    activePid: row['active_pid'] ? Number(row['active_pid']) : undefined,
    confirmedLsn: row['confirmed_flush_lsn'] ? parseLsn(row['confirmed_flush_lsn']) : undefined,
    walStatus: row['wal_status'] ?? undefined,
    invalidationReason: row['invalidation_reason'] ?? undefined,
    failover: row['failover'] ? row['failover'] === 'true' : undefined,
    retainedBytes: Number(row['retained'] ?? 0),
  };
}

/** The slot, and the SQL that is true until another relay leads. */
export interface LedSlot {
  readonly slotName: string;
  readonly whileLeading: string;
}

/**
 * Ends a server process that still holds the slot. The lease proves that whoever opened that connection is gone or cut
 * off, and the server may need a minute to notice it by itself; a former leader ends nobody's.
 */
export async function terminateHolder(client: Client, { slotName, whileLeading }: LedSlot): Promise<void> {
  await client.query(
    `select pg_terminate_backend(active_pid) from pg_replication_slots
      where slot_name = $1 and active_pid is not null and ${whileLeading}`,
    [slotName],
  );
}

/** Ends its reader, which takes the server a moment, and drops it. Also when somebody else drops it meanwhile. */
export async function dropSlot(client: Client, slot: LedSlot): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    await terminateHolder(client, slot);
    try {
      await client.query(
        `select pg_drop_replication_slot(slot_name) from pg_replication_slots
          where slot_name = $1 and ${slot.whileLeading}`,
        [slot.slotName],
      );
      return;
    } catch (error) {
      if (classify(error).code !== 'slot-active' || attempt === DROP_ATTEMPTS) throw error;
      await sleep(DROP_RETRY_MS);
    }
  }
}

/** A connection for replication commands outside a stream. The signal cuts it, also while it is being made. */
export class ReplicationSession {
  private readonly client: Client;
  private readonly signal: AbortSignal;

  private constructor(client: Client, signal: AbortSignal) {
    this.client = client;
    this.signal = signal;
  }

  static async open(config: ClientConfig, signal: AbortSignal): Promise<ReplicationSession> {
    signal.throwIfAborted();
    // Creating a slot waits for every running transaction, however long, by its lock: no timeout must end that.
    const options = `${config.options ?? ''} -c statement_timeout=0 -c lock_timeout=0`;
    const client = new PgClient({ ...config, options, replication: 'database' } as ClientConfig);
    client.on('error', () => undefined);
    const session = new ReplicationSession(client, signal);
    signal.addEventListener('abort', session.destroy, { once: true });
    try {
      await client.connect();
      return session;
    } catch (error) {
      // Not by a goodbye: a connection that never began does not answer it.
      signal.removeEventListener('abort', session.destroy);
      session.destroy();
      throw error;
    }
  }

  async identifySystem(): Promise<SystemIdentity> {
    const { rows } = await this.client.query<{ systemid: string; timeline: string }>({
      text: 'IDENTIFY_SYSTEM',
      query_timeout: COMMAND_TIMEOUT_MS,
    } as QueryConfig);
    const row = rows[0];
    if (!row) throw new TypeError('IDENTIFY_SYSTEM returned nothing');
    return { systemIdentifier: row.systemid, timeline: Number(row.timeline) };
  }

  /**
   * Waits for the transactions that run now, however long; the signal of the session gives up and leaves no slot behind.
   * `failover`: PostgreSQL 17 and later.
   */
  async createSlot(wanted: {
    readonly slotName: string;
    readonly failover: boolean;
    readonly withSnapshot: boolean;
  }): Promise<CreatedSlot> {
    const { slotName, failover, withSnapshot } = wanted;
    const snapshot = withSnapshot ? 'export' : 'nothing';
    // Without FAILOVER the syntax that 14 to 18 understand.
    const options = failover
      ? `(SNAPSHOT '${snapshot}', FAILOVER true)`
      : withSnapshot
        ? 'EXPORT_SNAPSHOT'
        : 'NOEXPORT_SNAPSHOT';
    const { rows } = await this.client.query<{ consistent_point: string; snapshot_name: string | null }>(
      `CREATE_REPLICATION_SLOT "${slotName}" LOGICAL pgoutput ${options}`,
    );
    const row = rows[0];
    if (!row) throw new TypeError('CREATE_REPLICATION_SLOT returned nothing');
    return { createdLsn: parseLsn(row.consistent_point), snapshotName: row.snapshot_name ?? undefined };
  }

  /** Waits for whoever reads the slot, without end as far as the server is concerned: to be called when nobody does. */
  async makeFailover(slotName: string): Promise<void> {
    await this.client.query({
      text: `ALTER_REPLICATION_SLOT "${slotName}" (FAILOVER true)`,
      query_timeout: COMMAND_TIMEOUT_MS,
    } as QueryConfig);
  }

  async close(): Promise<void> {
    this.signal.removeEventListener('abort', this.destroy);
    // On a half-open connection the goodbye is never answered.
    const timer = setTimeout(() => this.destroy(), CLOSE_DEADLINE_MS);
    await this.client.end().catch(() => undefined);
    clearTimeout(timer);
  }

  /** The server notices the closed socket, ends the command and drops the half-made slot. */
  private readonly destroy = (): void => {
    const { connection } = this.client as unknown as { connection: { stream: { destroy(): void } } };
    connection.stream.destroy();
  };
}

/** A slot of that name that is physical, of another plugin or in another database is somebody else's. */
export function isOurs(slot: Slot, database: string | undefined): boolean {
  return slot.slotType === 'logical' && slot.plugin === 'pgoutput' && slot.database === database;
}

/** Throws when a slot of this name belongs to somebody else: it must not be dropped, and can't be used. */
export function assertOurs(slot: Slot, slotName: string, database: string): void {
  if (isOurs(slot, database)) return;
  throw new RelayError(
    'stop',
    'slot-foreign',
    `slot ${slotName} is a ${slot.slotType} slot of plugin ${slot.plugin || 'none'} in database ${slot.database || 'none'}`,
    { advice: 'Set SLOT_NAME to a name of its own, or drop that slot if nobody needs it.' },
  );
}
