import { setTimeout as sleep } from 'node:timers/promises';
import { RelayError } from '../errors/errors.ts';

/** How long one attempt may wait for a lock on a table, and so hold up the writers behind it. */
export const LOCK_TIMEOUT_MS = 2_000;
/** Writers run freely between two attempts. */
const PAUSE_MS = 1_000;
const ATTEMPTS = 60;
const LOCK_NOT_AVAILABLE = '55P03';

/** Whether a statement gave up waiting for a lock (`lock_timeout`, `nowait`). */
export function isLockTimeout(error: unknown): boolean {
  return (error as { code?: unknown }).code === LOCK_NOT_AVAILABLE;
}

/**
 * Runs `action`, again after a pause while it fails because of a lock. Throws RelayError('retry') after the last
 * attempt, and every other error as it is.
 */
export async function withLockRetry<T>(
  action: () => Promise<T>,
  options: {
    readonly lockAttempts?: number;
    readonly onProgress?: (text: string) => void;
    readonly signal?: AbortSignal;
  },
): Promise<T> {
  const { lockAttempts = ATTEMPTS, onProgress, signal } = options;
  for (let attempt = 1; ; attempt++) {
    try {
      return await action();
    } catch (error) {
      if (!isLockTimeout(error)) throw error;
      if (attempt >= lockAttempts) throw gaveUp(attempt, error);
      onProgress?.(
        `a transaction holds a lock that is needed; attempt ${attempt + 1} of ${lockAttempts} follows`,
      );
      await sleep(PAUSE_MS, undefined, { ...(signal && { signal }) });
    }
  }
}

function gaveUp(attempts: number, cause: unknown): RelayError {
  return new RelayError('retry', 'lock', `no lock in ${attempts} attempts of ${LOCK_TIMEOUT_MS} ms`, {
    advice:
      'A long transaction holds the table: find it in pg_stat_activity (xact_start), let it end, and run this again.',
    cause,
  });
}
