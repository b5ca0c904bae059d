import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../support/until.ts';
import type { Arrival, BenchTarget } from '../broker.ts';
import { withBacklog, type Contender } from '../contender.ts';
import { insertOpenLoop } from '../latency.ts';
import { median } from '../../support/statistics.ts';

/** Twice the longest interval at which a contender stores its position, so that a kill meets any moment of it. */
const MIN_UPTIME_MS = 6_000;
const MAX_UPTIME_MS = 11_000;
/** Everything has come when the topic has been quiet for so long. */
const QUIET_MS = 3_000;

export interface KillCost {
  readonly events: number;
  readonly duplicatesPerKill: number;
  readonly maxDuplicates: number;
  readonly lost: number;
  /** First deliveries that came after a later event of their key. */
  readonly inverted: number;
  /** From the start after a kill to the first new record; median. */
  readonly backAfterMs: number;
}

/** Kills the relay at random moments while events are committed at a fixed rate, and reads what consumers got. */
export async function killCost(
  place: { serverUrl: string; target: BenchTarget },
  contender: Contender,
  { kills, rate, random }: { kills: number; rate: number; random: () => number },
): Promise<KillCost> {
  const { target } = place;
  return await withBacklog(contender, place, async (backlog) => {
    const enough = new AbortController();
    const written = insertOpenLoop(backlog, { rate, events: Infinity, signal: enough.signal });
    const killedAtMs: number[] = [];
    const backAfterMs: number[] = [];
    let running = await contender.start(backlog, target);
    try {
      await untilMoreThan(target, 0);
      for (let kill = 0; kill < kills; kill++) {
        await sleep(MIN_UPTIME_MS + random() * (MAX_UPTIME_MS - MIN_UPTIME_MS));
        await running.kill('SIGKILL');
        const before = await target.count();
        killedAtMs.push(Date.now());
        running = await contender.start(backlog, target);
        await untilMoreThan(target, before);
        backAfterMs.push(Date.now() - (killedAtMs.at(-1) as number));
      }
      enough.abort();
      const events = await written;
      await untilQuiet(target, events);
      const arrivals = await target.arrivals();
      return { events, ...judge(arrivals, events, killedAtMs), backAfterMs: median(backAfterMs) };
    } finally {
      enough.abort();
      await written;
      await running.kill('SIGTERM');
    }
  });
}

async function untilMoreThan(target: BenchTarget, records: number): Promise<void> {
  await until(async () => (await target.count()) > records, { timeoutMs: 60_000, what: 'a delivery' });
}

/** A count says little while some came twice: quiet as well. */
async function untilQuiet(target: BenchTarget, events: number): Promise<void> {
  let count = 0;
  let sinceMs = 0;
  await until(
    async () => {
      const now = await target.count();
      if (now !== count) sinceMs = performance.now();
      count = now;
      return count >= events && performance.now() - sinceMs > QUIET_MS;
    },
    { timeoutMs: 120_000, what: `${events} events and then nothing more` },
  );
}

/** Of records in the order of their partitions. */
export function judge(
  arrivals: readonly Arrival[],
  events: number,
  killedAtMs: readonly number[],
): Omit<KillCost, 'events' | 'backAfterMs'> {
  const seen = new Set<number>();
  const latest = new Map<string, number>();
  const again = killedAtMs.map(() => 0);
  let duplicates = 0;
  let inverted = 0;
  for (const { key, n, atMs } of arrivals) {
    if (seen.has(n)) {
      duplicates++;
      const kill = killedAtMs.findLastIndex((killedMs) => killedMs <= atMs);
      if (kill >= 0) again[kill] = (again[kill] ?? 0) + 1;
      continue;
    }
    seen.add(n);
    const last = latest.get(key) ?? 0;
    if (n < last) inverted++;
    latest.set(key, Math.max(n, last));
  }
  return {
    duplicatesPerKill: duplicates / killedAtMs.length,
    maxDuplicates: Math.max(0, ...again),
    lost: events - seen.size,
    inverted,
  };
}
