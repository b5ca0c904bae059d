import { setTimeout as sleep } from 'node:timers/promises';

const INTERVAL_MS = 5;

/** Asks again every few milliseconds until the answer is yes. Resolves false after `deadlineMs`. */
export async function retryUntil(deadlineMs: number, ask: () => Promise<boolean>): Promise<boolean> {
  const endMs = performance.now() + deadlineMs;
  while (performance.now() < endMs) {
    if (await ask()) return true;
    await sleep(INTERVAL_MS);
  }
  return false;
}
