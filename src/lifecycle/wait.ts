import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

/** Waits. Resolves early, without throwing, when the signal aborts. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
}

export async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort');
}

/** What the promise gives, or what `late` gives (or throws) when that takes longer than `deadlineMs`. */
export async function within<T, L>(promise: Promise<T>, deadlineMs: number, late: () => L): Promise<T | L> {
  const tooLate = Symbol('too late');
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<typeof tooLate>((resolve) => {
    timer = setTimeout(() => resolve(tooLate), deadlineMs);
  });
  try {
    const first = await Promise.race([promise, deadline]);
    return first === tooLate ? late() : first;
  } finally {
    clearTimeout(timer);
  }
}

/** What the promise gives, unless the signal aborts first: then rejects with its reason. The work itself goes on. */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborting, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborting]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
