import type { Client } from 'pg';
import { pause } from '../../../lifecycle/wait.ts';
import { formatLsn } from '../../../postgres/lsn.ts';

export interface FailoverReadiness {
  /** PostgreSQL 17 and later. */
  readonly can: boolean;
  readonly state: 'ready' | 'too-old' | 'nobody-to-wait-for' | 'standby-slot-missing';
  readonly message: string;
}

const FIRST_VERSION = 170_000;
const STANDBY_LOOK_MS = 10;

/** Those that the stream of such a slot waits for; none before PostgreSQL 17. */
const NAMED = `select trim(both ' "' from part) as name
  from regexp_split_to_table(current_setting('synchronized_standby_slots', true), ',') part`;

/** Whether a slot that follows the standbys can be made, and what its stream will wait for. */
export async function examineFailover(client: Client): Promise<FailoverReadiness> {
  const { rows } = await client.query<{ version: string; named: string | null; missing: string | null }>(
    `select current_setting('server_version_num') as version, string_agg(name, ', ') as named,
            string_agg(name, ', ') filter (where not exists
              (select from pg_replication_slots where slot_name = name and slot_type = 'physical')) as missing
       from (${NAMED}) as names where name <> ''`,
  );
  const { version, named, missing } = rows[0] ?? { version: '0', named: null, missing: null };
  if (Number(version) < FIRST_VERSION)
    return { can: false, state: 'too-old', message: 'SLOT_FAILOVER has no effect before PostgreSQL 17' };
  if (!named) {
    const message =
      'SLOT_FAILOVER: synchronized_standby_slots is empty, so that nothing waits for a standby and a failover can take back what was published';
    return { can: true, state: 'nobody-to-wait-for', message };
  }
  if (missing) {
    const message = `delivery waits for the physical slot ${missing}, which synchronized_standby_slots names and which does not exist: nothing is delivered until it does`;
    return { can: true, state: 'standby-slot-missing', message };
  }
  return { can: true, state: 'ready', message: `delivery waits for ${named}` };
}

/**
 * Until every one of these standbys has the log up to `lsn`, which a stream waits for by itself, or until the signal
 * aborts: of what comes from the table nothing must be published either that a failover takes back.
 */
export async function untilStandbysHave(client: Client, lsn: bigint, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && !(await standbysHave(client, lsn))) await pause(STANDBY_LOOK_MS, signal);
}

async function standbysHave(client: Client, lsn: bigint): Promise<boolean> {
  const { rows } = await client.query<{ have: string }>(
    `select coalesce(bool_and(coalesce(s.restart_lsn, '0/0') >= $1::pg_lsn), true)::text as have
       from (${NAMED}) as names left join pg_replication_slots s on s.slot_name = name and s.slot_type = 'physical'
      where name <> ''`,
    [formatLsn(lsn)],
  );
  return rows[0]?.have === 'true';
}
