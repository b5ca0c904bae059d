import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';

/** It only ends what hangs: a test that promises a time says it. A busy machine takes several times as long as an idle one. */
const DEFAULT_TIMEOUT_MS = 30_000;
/**
 * Without `intervalMs`, a tenth of what it has waited: a look often costs a connection to a server, and those of a test
 * that waits take their time from the cores that it waits for.
 */
const MIN_INTERVAL_MS = 5;
const MAX_INTERVAL_MS = 100;

/**
 * Polls `check` until it gives a value that is not false, null or undefined, and returns it. The error after
 * `timeoutMs` says `what` was waited for (a function is asked at that moment), the last value, and the last error that `check` threw.
 */
export async function until<T>(
  check: () => T | Promise<T>,
  options: { timeoutMs?: number; intervalMs?: number; what: string | (() => string) },
): Promise<Exclude<T, false | null | undefined>> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, intervalMs, what } = options;
  const startMs = performance.now();
  for (;;) {
    const last = await attempt(check);
    if (last.ok && last.value !== false && last.value !== null && last.value !== undefined) {
      return last.value as Exclude<T, false | null | undefined>;
    }
    const waitedMs = performance.now() - startMs;
    if (waitedMs > timeoutMs) throw timeoutError(typeof what === 'string' ? what : what(), timeoutMs, last);
    await sleep(intervalMs ?? Math.min(MAX_INTERVAL_MS, Math.max(MIN_INTERVAL_MS, waitedMs / 10)));
  }
}

type Attempt<T> = { ok: true; value: T } | { ok: false; error: unknown };

async function attempt<T>(check: () => T | Promise<T>): Promise<Attempt<T>> {
  try {
    return { ok: true, value: await check() };
  } catch (error) {
    return { ok: false, error };
  }
}

function timeoutError<T>(what: string, timeoutMs: number, last: Attempt<T>): Error {
  if (last.ok) return new Error(`not within ${timeoutMs} ms: ${what}; last value: ${inspect(last.value)}`);
  const reason = last.error instanceof Error ? last.error.message : inspect(last.error);
  return new Error(`not within ${timeoutMs} ms: ${what}; last error: ${reason}`, { cause: last.error });
}
