import { Client } from 'pg';
import { quantile } from '../support/statistics.ts';
import { until } from '../support/until.ts';
import { insertEvents, type Backlog } from './backlog.ts';
import { assertComplete, type Arrival, type BenchTarget } from './broker.ts';
import { outboxRelay, withBacklog, type Contender } from './contender.ts';
import { usageOf } from './measured-process.ts';

const WARM_UP_SECONDS = 2;
const KEYS = 1000;

export interface LatencyResult {
  /** Events a second. */
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly cpuPercent: number;
}

interface Load {
  readonly seconds: number;
  /** Events drained before, so that a compiler has learned. */
  readonly warmUpEvents?: number;
}

/** Events by their numbers, and what the process took while they were delivered. */
interface Measured {
  readonly rate: number;
  readonly first: number;
  readonly last: number;
  readonly cpuPercent: number;
}

/** Insert to append at the broker, open loop: events come at their time whether or not the last one has arrived. */
export async function latency(
  serverUrl: string,
  target: BenchTarget,
  options: { rate: number; seconds: number; env?: Readonly<Record<string, string>> },
): Promise<LatencyResult> {
  const { rate, seconds, env } = options;
  const [result] = await latencies({ serverUrl, target }, outboxRelay('relay', env), {
    rates: [rate],
    seconds,
  });
  return result as LatencyResult;
}

/** One rate after the other, delivered by one process. */
export async function latencies(
  place: { serverUrl: string; target: BenchTarget },
  contender: Contender,
  { rates, seconds, warmUpEvents = 0 }: Load & { rates: readonly number[] },
): Promise<LatencyResult[]> {
  const { target } = place;
  return await withBacklog(contender, place, async (backlog) => {
    await insertEvents(backlog.url, { events: warmUpEvents, keys: KEYS });
    const running = await contender.start(backlog, target);
    try {
      await untilCount(target, warmUpEvents);
      const measured: Measured[] = [];
      let first = warmUpEvents + 1;
      for (const rate of rates) {
        const events = rate * (seconds + WARM_UP_SECONDS);
        const last = first + events - 1;
        const before = usageOf(running.pid);
        const startMs = performance.now();
        await insertOpenLoop(backlog, { rate, events, first });
        await untilCount(target, last);
        const cpuSeconds = usageOf(running.pid).cpuSeconds - before.cpuSeconds;
        const cpuPercent = (cpuSeconds / (performance.now() - startMs)) * 100_000;
        measured.push({ rate, first: first + rate * WARM_UP_SECONDS, last, cpuPercent });
        first = last + 1;
      }
      const arrivals = await target.arrivals();
      assertComplete(arrivals, first - 1);
      return measured.map((range) => delaysOf(arrivals, range));
    } finally {
      await running.kill('SIGTERM');
    }
  });
}

async function untilCount(target: BenchTarget, events: number): Promise<void> {
  await until(async () => (await target.count()) >= events, { timeoutMs: 60_000, what: 'all events' });
}

/** Of what was planned. */
const LEAST_RATE = 0.97;

/** Writers that fall behind are no open loop: what their events would have waited for is in no delay. Throws. */
export function assertRate(insertedAtMs: readonly number[], rate: number): void {
  const sorted = insertedAtMs.toSorted((a, b) => a - b);
  const reached = ((sorted.length - 1) * 1_000) / ((sorted.at(-1) ?? 0) - (sorted[0] ?? 0));
  if (!(reached >= rate * LEAST_RATE))
    throw new Error(`${Math.round(reached)} events a second were written instead of ${rate}`);
}

function delaysOf(arrivals: readonly Arrival[], { rate, first, last, cpuPercent }: Measured): LatencyResult {
  const measured = arrivals.filter(({ n }) => n >= first && n <= last);
  assertRate(
    measured.map(({ insertedAtMs }) => insertedAtMs),
    rate,
  );
  const delays = measured.map(({ atMs, insertedAtMs }) => atMs - insertedAtMs).toSorted((a, b) => a - b);
  return {
    rate,
    p50Ms: quantile(delays, 0.5),
    p99Ms: quantile(delays, 0.99),
    maxMs: delays.at(-1) ?? Number.NaN,
    cpuPercent,
  };
}

/**
 * Stamped by the database's clock inside the insert: an event that waits for its connection is not late by that, so the
 * rate that was reached has to be looked at. Over a few connections, each with one insert under way. Ends after `events`, or with `signal`; returns how many were committed.
 */
export async function insertOpenLoop(
  { url }: Backlog,
  { rate, events, first = 1, signal }: { rate: number; events: number; first?: number; signal?: AbortSignal },
): Promise<number> {
  const clients = await Promise.all(
    Array.from({ length: 8 }, async () => {
      const client = new Client({ connectionString: url });
      await client.connect();
      return client;
    }),
  );
  const startMs = performance.now();
  const pending: Promise<unknown>[] = [];
  let sent = 0;
  while (sent < events) {
    if (signal?.aborted) break;
    const due = Math.min(events, Math.floor(((performance.now() - startMs) * rate) / 1000));
    for (; sent < due; sent++) {
      const n = first + sent;
      // A key stays with its connection: its events are committed in the order of n.
      const client = clients[n % clients.length] as Client;
      pending.push(
        client.query({
          name: 'insert',
          text: `insert into outbox (aggregatetype, aggregateid, type, payload) values ('bench', $1, 'Stamped',
                   jsonb_build_object('n', $2::int, 'fill', repeat('x', 240),
                                      'at', extract(epoch from clock_timestamp()) * 1000))`,
          values: [`key-${n % KEYS}`, n],
        }),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(pending);
  await Promise.all(clients.map((client) => client.end()));
  return sent;
}
