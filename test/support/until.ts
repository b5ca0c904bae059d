import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';

/** It only ends what hangs: a test that promises a time says it. A busy machine takes several times as long as an idle one. */
const DEFAULT_TIMEOUT_MS = 30_000;

/**
 * Polls `check` until it gives a value that is not false, null or undefined, and returns it. The error after
 * `timeoutMs` says `what` was waited for, the last value, and the last error that `check` threw.
 */
export async function until<T>(
  check: () => T | Promise<T>,
  options: { timeoutMs?: number; intervalMs?: number; what: string },
): Promise<Exclude<T, false | null | undefined>> {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, intervalMs = 10, what } = options;
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const last = await attempt(check);
    if (last.ok && last.value !== false && last.value !== null && last.value !== undefined) {
      return last.value as Exclude<T, false | null | undefined>;
    }
    if (performance.now() > deadline) throw timeoutError(what, timeoutMs, last);
    await sleep(intervalMs);
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
