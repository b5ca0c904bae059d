import { setTimeout as sleep } from 'node:timers/promises';

const INTERVAL_MS = 5;

/** Asks again every few milliseconds until the answer is yes. At least once; resolves false after `deadlineMs`. */
export async function retryUntil(deadlineMs: number, ask: () => Promise<boolean>): Promise<boolean> {
  const endMs = performance.now() + deadlineMs;
  for (;;) {
    if (await ask()) return true;
    if (performance.now() >= endMs) return false;
    await sleep(INTERVAL_MS);
  }
}
