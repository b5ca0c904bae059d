import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { parseLsn } from '../../postgres/lsn.ts';

/** Between two looks whether the log is on disk. */
const LOOK_MS = 2;
/** Writers that commit at all do so sooner; without them a flush of our own delays nobody. */
const MAX_LOOKS = 6;
/** After nobody else has flushed, so many writes do it themselves before the others are relied on again. */
const OWN_FLUSHES = 20;

/**
 * Lets the writers' commits carry ours to the disk. Every commit that waits for the disk makes theirs wait longer:
 * measured at 1,000 inserts/s, our own flushes added three quarters to the median time of an insert.
 *
 * Such a write counts for nothing until it is known to be on disk: until then nothing is acknowledged, and a crash of the
 * server finds it among what is to be written again.
 */
export class SharedFlush {
  /** Nobody knows yet who else commits. */
  private ownLeft = OWN_FLUSHES;

  /** Whether the next write may leave the flush to others. Counts. */
  next(): boolean {
    if (this.ownLeft === 0) return true;
    this.ownLeft--;
    return false;
  }

  /** Resolves when everything in the log now is on disk; `force` puts it there. */
  async wait(client: Client, force: () => Promise<void>): Promise<void> {
    let log = await readLog(client);
    const end = log.inserted;
    for (let looks = 1; log.flushed < end; looks++) {
      if (looks === MAX_LOOKS) {
        this.ownLeft = OWN_FLUSHES;
        await force();
        return;
      }
      await sleep(LOOK_MS);
      log = await readLog(client);
    }
  }
}

async function readLog(client: Client): Promise<{ inserted: bigint; flushed: bigint }> {
  const { rows } = await client.query<{ inserted: string; flushed: string }>(
    'select pg_current_wal_insert_lsn()::text as inserted, pg_current_wal_flush_lsn()::text as flushed',
  );
  const [row] = rows as [{ inserted: string; flushed: string }];
  return { inserted: parseLsn(row.inserted), flushed: parseLsn(row.flushed) };
}
