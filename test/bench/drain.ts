import { until } from '../support/until.ts';
import { insertEvents, query, type Backlog } from './backlog.ts';
import { assertComplete, type Arrival, type BenchTarget } from './broker.ts';
import { outboxRelay, withBacklog, type Contender, type Running } from './contender.ts';
import { usageOf, type Usage } from './measured-process.ts';

export interface DrainResult {
  readonly eventsPerSecond: number;
  readonly cpuMicrosPerEvent: number;
  readonly peakRssMb: number;
  /** From the start of the process to the first append; undefined where the broker has no append time. */
  readonly firstDeliveryMs: number | undefined;
}

interface DrainOptions {
  readonly events: number;
  readonly keys: number;
  /** Of a payload. */
  readonly bytes?: number;
}

/** Drains a backlog from the WAL with the built relay, and checks gaps, order and duplicates. */
export async function drain(
  serverUrl: string,
  target: BenchTarget,
  { env, ...options }: DrainOptions & { env?: Readonly<Record<string, string>> },
): Promise<DrainResult> {
  const deletes = { ...target.env, ...env }['CLEANUP'] !== 'none';
  const contender = outboxRelay('relay', env);
  const { asStarted } = await drainTwice({ serverUrl, target }, contender, { ...options, deletes });
  return asStarted;
}

/**
 * Drains a backlog with a process that was just started and, when it can rest, the same again with that process.
 * `deletes`: the CPU time includes the removal of all rows.
 */
export async function drainTwice(
  place: { serverUrl: string; target: BenchTarget },
  contender: Contender,
  options: DrainOptions & { deletes: boolean },
): Promise<{ asStarted: DrainResult; warm: DrainResult | undefined }> {
  const { target } = place;
  const { events } = options;
  return await withBacklog(contender, place, async (backlog) => {
    await insertEvents(backlog.url, options);
    const startedAtMs = Date.now();
    const running = await contender.start(backlog, target);
    try {
      const nothing = { cpuSeconds: 0 };
      const first = await untilDrained({ target, backlog, running, from: nothing }, { ...options, events });
      const again = running.rest && (await drainAgain(running, { backlog, target, ...options }));
      await running.kill('SIGTERM');
      const arrivals = await target.arrivals();
      assertComplete(arrivals, again ? 2 * events : events);
      const result = { arrivals, startedAtMs, events };
      return {
        asStarted: resultOf(first, { ...result, after: 0 }),
        warm: again && { ...resultOf(again, { ...result, after: events }), firstDeliveryMs: undefined },
      };
    } finally {
      await running.kill('SIGKILL');
    }
  });
}

/** The same number of events once more, written while the process rests. */
async function drainAgain(
  running: Running,
  place: { backlog: Backlog; target: BenchTarget } & DrainOptions & { deletes: boolean },
): Promise<Drained> {
  const { backlog, target, events, deletes } = place;
  await running.rest?.pause();
  await insertEvents(backlog.url, { ...place, first: events + 1 });
  const from = usageOf(running.pid);
  await running.rest?.resume();
  return await untilDrained({ target, backlog, running, from }, { events: 2 * events, deletes });
}

interface Drained {
  readonly usage: Pick<Usage, 'cpuSeconds' | 'peakRssBytes'>;
  readonly seconds: number;
}

async function untilDrained(
  {
    target,
    backlog,
    running,
    from,
  }: { target: BenchTarget; backlog: Backlog; running: Running; from: Pick<Usage, 'cpuSeconds'> },
  { events, deletes }: { events: number; deletes: boolean },
): Promise<Drained> {
  const { seconds } = await untilCounted(target, events);
  if (deletes) await untilEmpty(backlog.url);
  const { cpuSeconds, peakRssBytes } = usageOf(running.pid);
  return { seconds, usage: { cpuSeconds: cpuSeconds - from.cpuSeconds, peakRssBytes } };
}

function resultOf(
  { usage, seconds: countedSeconds }: Drained,
  context: { arrivals: readonly Arrival[]; startedAtMs: number; events: number; after: number },
): DrainResult {
  const { arrivals, startedAtMs, events, after } = context;
  const times = arrivals
    .filter(({ n }) => n > after && n <= after + events)
    .map(({ atMs }) => atMs)
    .toSorted((a, b) => a - b);
  const first = times[0] ?? 0;
  const seconds = first > 0 ? ((times.at(-1) ?? 0) - first) / 1000 : countedSeconds;
  return {
    eventsPerSecond: events / seconds,
    cpuMicrosPerEvent: (usage.cpuSeconds * 1e6) / events,
    peakRssMb: usage.peakRssBytes / 1e6,
    firstDeliveryMs: first > 0 ? first - startedAtMs : undefined,
  };
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
    { timeoutMs: 300_000, intervalMs: target.countEveryMs, what: `${events} events at the broker` },
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
