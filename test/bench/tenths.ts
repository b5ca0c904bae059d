import { setTimeout as sleep } from 'node:timers/promises';
import { insertEvents } from './backlog.ts';
import { CompletenessCheck, scanArrivals, type BenchTarget } from './broker.ts';
import { outboxRelay, withBacklog } from './contender.ts';
import { postgresUsage, usageOf } from './measured-process.ts';

const SAMPLE_MS = 250;
const KEYS = 1000;
const GIVE_UP_MS = 30 * 60_000;
/** A backlog of ten million is larger than what the relay lets a slot keep by default. */
const RETENTION_LIMIT_BYTES = 2 ** 36;

/** Counters at one moment of a drain; CPU in seconds since the start of each process. */
export interface Sample {
  readonly atMs: number;
  readonly delivered: number;
  readonly rssBytes: number;
  readonly relay: number;
  readonly walsender: number;
  readonly postgres: number;
  readonly broker: number;
}

export interface Tenth {
  readonly eventsPerSecond: number;
  readonly peakRssMb: number;
  /** Shares of one core. */
  readonly cpu: Record<'relay' | 'walsender' | 'postgres' | 'broker', number>;
}

/** One long drain from the WAL, by tenths of its events: does it slow down or grow, and which process is the limit? */
export async function tenthsOfDrain(
  place: { serverUrl: string; target: BenchTarget; postmaster: number; broker: number },
  { events, cleanup }: { events: number; cleanup: string },
): Promise<Tenth[]> {
  const { target } = place;
  const relay = outboxRelay('relay', {
    CLEANUP: cleanup,
    WAL_RETENTION_LIMIT_BYTES: String(RETENTION_LIMIT_BYTES),
  });
  return await withBacklog(relay, place, async (backlog) => {
    await insertEvents(backlog.url, { events, keys: KEYS, writers: 2 });
    const running = await relay.start(backlog, target);
    const samples: Sample[] = [];
    try {
      for (const startMs = performance.now(); (samples.at(-1)?.delivered ?? 0) < events;) {
        if (performance.now() - startMs > GIVE_UP_MS) throw new Error('the drain does not end');
        await sleep(SAMPLE_MS);
        samples.push(await sample(place, running.pid));
      }
    } finally {
      await running.kill('SIGTERM');
    }
    const check = new CompletenessCheck();
    await scanArrivals(target, (arrival) => check.add(arrival));
    check.end(events);
    return toTenths(samples, events);
  });
}

async function sample(
  { target, postmaster, broker }: { target: BenchTarget; postmaster: number; broker: number },
  pid: number,
): Promise<Sample> {
  const delivered = await target.count();
  const relay = usageOf(pid);
  const postgres = postgresUsage(postmaster);
  return {
    atMs: performance.now(),
    delivered,
    rssBytes: relay.rssBytes,
    relay: relay.cpuSeconds,
    walsender: postgres.walsenders,
    postgres: postgres.others,
    broker: usageOf(broker).cpuSeconds,
  };
}

/** From the first event on; the ends of a tenth lie between two samples. */
export function toTenths(samples: readonly Sample[], events: number): Tenth[] {
  const from = samples.findIndex(({ delivered }) => delivered > 0);
  const drained = samples.slice(Math.max(0, from));
  const first = drained[0]?.delivered ?? 0;
  const bounds = Array.from({ length: 11 }, (_, i) => at(drained, first + ((events - first) * i) / 10));
  return bounds.slice(1).map((end, i) => {
    const begin = bounds[i] as Sample;
    const seconds = (end.atMs - begin.atMs) / 1000;
    const within = drained.filter(({ atMs }) => atMs >= begin.atMs && atMs <= end.atMs);
    return {
      eventsPerSecond: (end.delivered - begin.delivered) / seconds,
      peakRssMb: Math.max(end.rssBytes, ...within.map(({ rssBytes }) => rssBytes)) / 1e6,
      cpu: {
        relay: (end.relay - begin.relay) / seconds,
        walsender: (end.walsender - begin.walsender) / seconds,
        postgres: (end.postgres - begin.postgres) / seconds,
        broker: (end.broker - begin.broker) / seconds,
      },
    };
  });
}

/** All counters at the moment of the `delivered`th event, between the two samples around it. */
function at(samples: readonly Sample[], delivered: number): Sample {
  const index = samples.findIndex((one) => one.delivered >= delivered);
  const after = samples[index] as Sample;
  const before = samples[Math.max(0, index - 1)] as Sample;
  const span = after.delivered - before.delivered;
  const share = span > 0 ? (delivered - before.delivered) / span : 0;
  const between = (name: keyof Sample): number => before[name] + (after[name] - before[name]) * share;
  return {
    atMs: between('atMs'),
    delivered,
    rssBytes: between('rssBytes'),
    relay: between('relay'),
    walsender: between('walsender'),
    postgres: between('postgres'),
    broker: between('broker'),
  };
}
