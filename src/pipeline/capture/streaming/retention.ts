import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';
import { readSlot } from './slot.ts';

const LOOK_MS = 2_000;

/**
 * Looks now and regularly how much of the log the slot keeps, and tells when it is more than WAL_RETENTION_LIMIT_BYTES.
 * A look that fails says nothing: whoever uses the connection meets the same error. Ends with `clearInterval`.
 */
export function watchRetention(
  client: Client,
  config: Config,
  onTooMuch: (error: RelayError) => void,
): NodeJS.Timeout {
  let looking = false;
  const look = async (): Promise<void> => {
    const slot = await readSlot(client, config.slotName);
    const { walRetentionLimitBytes: limit } = config;
    if (!slot || slot.retainedBytes <= limit) return;
    const message = `the replication slot keeps ${slot.retainedBytes} bytes of the log, WAL_RETENTION_LIMIT_BYTES is ${limit}`;
    onTooMuch(
      new RelayError('retry', 'wal-limit', message, {
        advice:
          'With SOURCE=auto the slot is given up and the table is polled; look why the broker is behind.',
      }),
    );
  };
  const step = (): void => {
    if (looking) return;
    looking = true;
    look()
      .catch(() => undefined)
      .finally(() => {
        looking = false;
      });
  };
  step();
  return setInterval(step, LOOK_MS);
}
