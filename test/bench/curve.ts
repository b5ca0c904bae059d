import { until } from '../support/until.ts';
import { assertComplete, type BenchTarget } from './broker.ts';
import { outboxRelay, withBacklog } from './contender.ts';
import { insertOpenLoop, latencies, type LatencyResult } from './latency.ts';

const WARM_UP_EVENTS = 20_000;
const CAPACITY_EVENTS = 60_000;
/** Faster than any writer: every event is due at once. */
const AT_ONCE = 1e9;
const LEAST_RATE = 100;
const SHARES = [0.1, 0.2, 0.4, 0.6, 0.8];

interface Place {
  readonly serverUrl: string;
  readonly target: BenchTarget;
}

/**
 * Events a second that eight connections commit and the relay delivers meanwhile, all on this machine: by the append times
 * of what comes after the warm-up.
 */
export async function capacity(place: Place): Promise<number> {
  const { target } = place;
  const relay = outboxRelay('relay');
  const events = WARM_UP_EVENTS + CAPACITY_EVENTS;
  return await withBacklog(relay, place, async (backlog) => {
    const running = await relay.start(backlog, target);
    try {
      await insertOpenLoop(backlog, { rate: AT_ONCE, events });
      await until(async () => (await target.count()) >= events, { timeoutMs: 120_000, what: 'all events' });
    } finally {
      await running.kill('SIGTERM');
    }
    const arrivals = await target.arrivals();
    assertComplete(arrivals, events);
    const times = arrivals
      .filter(({ n }) => n > WARM_UP_EVENTS)
      .map(({ atMs }) => atMs)
      .toSorted((a, b) => a - b);
    return (CAPACITY_EVENTS * 1000) / ((times.at(-1) ?? 0) - (times[0] ?? 0));
  });
}

/** Delays from 100 events a second to four fifths of `mostRate`, one rate after the other by one process. */
export async function latencyCurve(
  place: Place,
  { mostRate, seconds }: { mostRate: number; seconds: number },
): Promise<LatencyResult[]> {
  const rates = [LEAST_RATE, ...SHARES.map((share) => Math.round((mostRate * share) / 100) * 100)];
  return await latencies(place, outboxRelay('relay'), { rates, seconds, warmUpEvents: WARM_UP_EVENTS });
}
