import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';

const RETRY_MS = 1_000;

/**
 * Waits until this process is the one that publishes for the slot: a session lock of PostgreSQL, held as long as the
 * connection lives. Whoever else waits stands by. Resolves false when the signal aborts first.
 */
export async function becomeLeader(
  client: Client,
  options: { slotName: string; signal: AbortSignal; onStandby: () => void },
): Promise<boolean> {
  let told = false;
  while (!options.signal.aborted) {
    const { rows } = await client.query<{ locked: string }>(
      `select pg_try_advisory_lock(hashtextextended('outbox-relay leader ' || $1, 0))::text as locked`,
      [options.slotName],
    );
    if (rows[0]?.locked === 'true') return true;
    if (!told) options.onStandby();
    told = true;
    await sleep(RETRY_MS, undefined, { signal: options.signal }).catch(() => undefined);
  }
  return false;
}
