import { withClient } from './database.ts';
import { until } from './until.ts';

/** As somebody does who finds that it retains too much; the relay may take it again in between. */
export async function dropSlot(databaseUrl: string, slot: string): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    const drop = async (): Promise<boolean> => {
      await client.query(
        'select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active_pid is not null',
        [slot],
      );
      await client.query('select pg_drop_replication_slot($1)', [slot]);
      return true;
    };
    await until(drop, { what: 'the slot to be dropped' });
  });
}
