import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';
import { connect, disconnect } from '../../../postgres/connect.ts';
import { isOurs, readSlot } from './slot.ts';
import { pause } from '../../../lifecycle/wait.ts';

const MAX_LOOK_MS = 2_000;
const MIN_LOOK_MS = 100;
/** More than a server writes. What comes between the limit and the drop must stay below a segment of 16 MiB. */
const FASTEST_BYTES_PER_MS = 100_000;
const CONNECT_AGAIN_MS = 1_000;

export interface RetentionWatch {
  readonly config: Config;
  /** Called at every look that finds too much, with the connection of the watch. */
  readonly onTooMuch: (error: RelayError, client: Client) => Promise<void>;
  /** It can't look, because of this error, or what it found could not be acted on; undefined: it looks again. */
  readonly onGuard: (broken: unknown) => void;
  readonly signal: AbortSignal;
}

/**
 * Looks how much of the log the slot keeps, until the signal aborts, and tells when it is more than
 * WAL_RETENTION_LIMIT_BYTES. On a connection of its own: the session's may be waiting for a lock on the outbox, or for a
 * large write, while the log grows. Never rejects: what keeps it from looking is told, and it is tried again.
 */
export async function watchRetention(watch: RetentionWatch): Promise<void> {
  const { signal } = watch;
  while (!signal.aborted) {
    await lookUntilBroken(watch).catch((error: unknown) => {
      if (!signal.aborted) watch.onGuard(error);
    });
    await pause(CONNECT_AGAIN_MS, signal);
  }
}

async function lookUntilBroken({ config, onTooMuch, onGuard, signal }: RetentionWatch): Promise<void> {
  // The signal cuts it: whoever ends the watch does not wait for an answer.
  const client = await connect(config.database.connection(), {
    applicationName: 'outbox-relay guard',
    signal,
  });
  try {
    while (!signal.aborted) {
      const slot = await readSlot(client, config.slotName);
      const retainedBytes = slot && isOurs(slot, client.database) ? slot.retainedBytes : 0;
      const { walRetentionLimitBytes: limitBytes } = config;
      if (retainedBytes > limitBytes) await onTooMuch(tooMuch(retainedBytes, limitBytes), client);
      onGuard(undefined);
      await pause(nextLookMs(retainedBytes, limitBytes), signal);
    }
  } finally {
    await disconnect(client);
  }
}

/** The nearer to the limit, the sooner. Pure. */
export function nextLookMs(retainedBytes: number, limitBytes: number): number {
  const earliestMs = (limitBytes - retainedBytes) / FASTEST_BYTES_PER_MS;
  return Math.min(MAX_LOOK_MS, Math.max(MIN_LOOK_MS, earliestMs));
}

function tooMuch(retainedBytes: number, limitBytes: number): RelayError {
  const message = `the replication slot keeps ${retainedBytes} bytes of the log, WAL_RETENTION_LIMIT_BYTES is ${limitBytes}`;
  return new RelayError('retry', 'wal-limit', message, {
    advice: 'With SOURCE=auto the slot is given up and the table is polled; look why the broker is behind.',
  });
}
