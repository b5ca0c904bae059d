import type { Client } from 'pg';

export interface FailoverReadiness {
  /** PostgreSQL 17 and later. */
  readonly can: boolean;
  readonly state: 'ready' | 'too-old' | 'nobody-to-wait-for' | 'standby-slot-missing';
  readonly message: string;
}

const FIRST_VERSION = 170_000;

/** Whether a slot that follows the standbys can be made, and what its stream will wait for. */
export async function examineFailover(client: Client): Promise<FailoverReadiness> {
  const { rows } = await client.query<{ version: string; named: string | null; missing: string | null }>(
    `select current_setting('server_version_num') as version, string_agg(name, ', ') as named,
            string_agg(name, ', ') filter (where not exists
              (select from pg_replication_slots where slot_name = name and slot_type = 'physical')) as missing
       from (select trim(both ' "' from part) as name
               from regexp_split_to_table(current_setting('synchronized_standby_slots', true), ',') part) as names
      where name <> ''`,
  );
  const { version, named, missing } = rows[0] ?? { version: '0', named: null, missing: null };
  if (Number(version) < FIRST_VERSION)
    return { can: false, state: 'too-old', message: 'SLOT_FAILOVER has no effect before PostgreSQL 17' };
  if (!named) {
    const message =
      'SLOT_FAILOVER: synchronized_standby_slots is empty, so that the stream waits for no standby and a failover can take back what was published';
    return { can: true, state: 'nobody-to-wait-for', message };
  }
  if (missing) {
    const message = `the stream waits for the physical slot ${missing}, which synchronized_standby_slots names and which does not exist: nothing is delivered until it does`;
    return { can: true, state: 'standby-slot-missing', message };
  }
  return { can: true, state: 'ready', message: `the stream waits for ${named}` };
}
