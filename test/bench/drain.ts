import { until } from '../support/until.ts';
import { fillBacklog, query } from './backlog.ts';
import { startBuiltRelay } from './built-relay.ts';
import { assertComplete, type BenchTarget } from './broker.ts';
import { usageOf } from './measured-process.ts';

export interface DrainResult {
  readonly eventsPerSecond: number;
  readonly cpuMicrosPerEvent: number;
  readonly peakRssMb: number;
  /** From the start of the process to the first append; undefined where the broker has no append time. */
  readonly firstDeliveryMs: number | undefined;
}

/** Drains a backlog from the WAL with the built relay, and checks gaps, order and duplicates. */
export async function drain(
  serverUrl: string,
  target: BenchTarget,
  options: { events: number; keys: number; env?: Readonly<Record<string, string>> },
): Promise<DrainResult> {
  const env = { ...target.env, ...options.env };
  const backlog = await fillBacklog(serverUrl, { ...options, env });
  const startedAtMs = Date.now();
  const relay = startBuiltRelay(backlog, env);
  try {
    const counted = await untilCounted(target, options.events);
    if (env['CLEANUP'] !== 'none') await untilEmpty(backlog.url);
    const usage = usageOf(relay.pid);
    relay.kill('SIGTERM');
    await relay.exit;
    const arrivals = await target.arrivals();
    assertComplete(arrivals, options.events);
    const times = arrivals.map(({ atMs }) => atMs).toSorted((a, b) => a - b);
    const first = times[0] ?? 0;
    const seconds = first > 0 ? ((times.at(-1) ?? 0) - first) / 1000 : counted.seconds;
    return {
      eventsPerSecond: options.events / seconds,
      cpuMicrosPerEvent: (usage.cpuSeconds * 1e6) / options.events,
      peakRssMb: usage.peakRssBytes / 1e6,
      firstDeliveryMs: first > 0 ? first - startedAtMs : undefined,
    };
  } finally {
    relay.kill('SIGKILL');
    await relay.exit;
    await backlog.drop();
  }
}

/** Seconds between the first count above zero and the last event, by polling: for brokers without append times. */
async function untilCounted(target: BenchTarget, events: number): Promise<{ seconds: number }> {
  let firstMs = 0;
  let firstCount = 0;
  await until(
    async () => {
      const count = await target.count();
      if (count > 0 && firstMs === 0) {
        firstMs = performance.now();
        firstCount = count;
      }
      return count >= events;
    },
    { timeoutMs: 300_000, intervalMs: 20, what: `${events} events at the broker` },
  );
  const seconds = (performance.now() - firstMs) / 1000;
  return { seconds: (seconds * events) / Math.max(1, events - firstCount) };
}

async function untilEmpty(url: string): Promise<boolean> {
  return await until(async () => (await query(url, 'select count(*) from outbox'))[0]?.['count'] === '0', {
    timeoutMs: 120_000,
    what: 'the outbox to be empty',
  });
}
