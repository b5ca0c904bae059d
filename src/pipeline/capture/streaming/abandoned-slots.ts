import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { qualified, quoteLiteral } from '../../../postgres/identifier.ts';

/** A slot that a relay of this outbox made under another SLOT_NAME, and that nobody reads now. */
export interface AbandonedSlot {
  readonly slot: string;
  readonly retainedBytes: number;
  /** Drops it. For a person to run: somebody may only have stopped its relay for a while. */
  readonly statement: string;
}

/** Slots with a progress row of this outbox. Those without one may be anybody's, whatever their name. */
export async function findAbandonedSlots(client: Client, config: Config): Promise<AbandonedSlot[]> {
  const { schema, table } = config.outbox;
  const { rows } = await client.query<{ slot: string; retained: string | null }>(
    `select s.slot_name as slot, pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) as retained
       from ${qualified(schema, 'outbox_relay_progress')} p join pg_replication_slots s on s.slot_name = p.slot_name
      where p.outbox_table = $1 and p.slot_name <> $2 and not s.active
        and s.plugin = 'pgoutput' and s.database = current_database()
      order by s.slot_name`,
    [`${schema}.${table}`, config.slotName],
  );
  return rows.map(({ slot, retained }) => ({
    slot,
    retainedBytes: Number(retained ?? 0),
    statement: `select pg_drop_replication_slot(${quoteLiteral(slot)});`,
  }));
}
