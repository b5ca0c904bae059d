import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';

const LOOK_MS = 2_000;

/**
 * Looks regularly how much of the log the slot keeps, and tells when it is more than WAL_RETENTION_LIMIT_BYTES. A look
 * that fails says nothing: whoever uses the connection meets the same error.
 */
export function watchRetention(
  client: Client,
  config: Config,
  onTooMuch: (error: RelayError) => void,
): NodeJS.Timeout {
  let looking = false;
  const look = async (): Promise<void> => {
    const { rows } = await client.query<{ bytes: string | null }>(
      `select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) as bytes
         from pg_replication_slots where slot_name = $1`,
      [config.slotName],
    );
    const bytes = Number(rows[0]?.bytes ?? 0);
    if (bytes <= config.walRetentionLimitBytes) return;
    const message = `the replication slot keeps ${bytes} bytes of the log, WAL_RETENTION_LIMIT_BYTES is ${config.walRetentionLimitBytes}`;
    onTooMuch(
      new RelayError('retry', 'wal-limit', message, {
        advice:
          'With SOURCE=auto the slot is given up and the table is polled; look why the broker is behind.',
      }),
    );
  };
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    look()
      .catch(() => undefined)
      .finally(() => {
        looking = false;
      });
  }, LOOK_MS);
  return timer;
}
