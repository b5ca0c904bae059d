import { setTimeout as sleep } from 'node:timers/promises';
import { Scene } from '../support/crash-run.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import type { Verdict } from '../support/judge.ts';
import type { RelayExit } from '../support/relay-process.ts';
import type { BrokerName } from '../support/target.ts';
import { until } from '../support/until.ts';

export interface Sample {
  /** Since the server was stopped. */
  readonly atMs: number;
  readonly lagSeconds: number;
  readonly inFlightEvents: number;
  readonly rssBytes: number;
  readonly live: boolean;
  readonly ready: boolean;
}

export interface OutageResult {
  readonly verdict: Verdict;
  /** During the outage, twice a second. */
  readonly samples: readonly Sample[];
  /** From the server's start to the first answer of a lag below one second. */
  readonly recoveredMs: number;
  readonly lagWhenDrained: number;
  readonly exit: RelayExit;
  /** Commits that were answered to the shop and that the database no longer has. */
  readonly takenBack: number;
}

export interface OutageOptions {
  readonly broker: BrokerName;
  readonly seconds: number;
  readonly stop: () => Promise<void>;
  readonly start: () => Promise<void>;
  readonly env?: Readonly<Record<string, string>>;
  readonly halfAsynchronous?: boolean;
  readonly serverUrl?: string;
  /** Outages one after the other; the samples are those of the last. */
  readonly times?: number;
}

const SAMPLE_MS = 500;
/** Both must be the same for every sample: a relay that is asked while its database starts would differ. */
const LOAD = { rate: 1000, writers: 4, keys: 100, rollback: 0.15 };

/** A server goes away under load and comes back; then everything is drained and counted. */
export async function outage(options: OutageOptions): Promise<OutageResult> {
  const { broker, serverUrl, halfAsynchronous = false, times = 1 } = options;
  const scene = await Scene.open(broker, {
    shop: { ...LOAD, halfAsynchronous },
    ...(serverUrl !== undefined && { serverUrl }),
  });
  const exhibits = await ExhibitReader.open();
  const relay = scene.startRelay({ env: { ...options.env, ...exhibits.env } });
  try {
    scene.shop.start();
    let samples: Sample[] = [];
    let recoveredMs = 0;
    for (let time = 0; time < times; time++) {
      await delivering(exhibits);
      await options.stop();
      samples = await sampleFor(exhibits, options.seconds);
      await options.start();
      const startedMs = performance.now();
      await until(async () => (await exhibits.lag()) < 1, {
        timeoutMs: 120_000,
        what: 'the backlog to shrink',
      });
      recoveredMs = performance.now() - startedMs;
    }
    await scene.shop.stop();
    await scene.drained(120_000);
    const lagWhenDrained = await until(async () => ((await exhibits.lag()) === 0 ? { lag: 0 } : undefined), {
      what: 'a lag of 0',
    });
    relay.kill('SIGTERM');
    const exit = await relay.exit;
    const verdict = await scene.verdict();
    const takenBack = Math.max(0, scene.shop.answered - verdict.committed);
    return { verdict, samples, recoveredMs, lagWhenDrained: lagWhenDrained.lag, exit, takenBack };
  } finally {
    await relay.destroy();
    await scene.close();
  }
}

/** The stream delivers, not the table pass of the start, and has caught up. */
async function delivering(exhibits: ExhibitReader): Promise<void> {
  const flowing = async (least: number): Promise<number | undefined> => {
    const scrape = await exhibits.scrape();
    const published = scrape.value('outbox_relay_events_published_total') ?? 0;
    const streaming = scrape.value('outbox_relay_mode', 'mode="streaming"') === 1;
    return streaming && published > least && (await exhibits.lag()) < 1 ? published : undefined;
  };
  const before = await until(() => flowing(0), { what: 'the stream to begin', timeoutMs: 60_000 });
  await until(() => flowing(before + 1_500), { what: 'a steady flow', timeoutMs: 60_000 });
}

async function sampleFor(exhibits: ExhibitReader, seconds: number): Promise<Sample[]> {
  const startMs = performance.now();
  const samples: Sample[] = [];
  while (performance.now() - startMs < seconds * 1000) {
    const scrape = await exhibits.scrape();
    samples.push({
      atMs: performance.now() - startMs,
      lagSeconds: scrape.value('outbox_relay_lag_seconds') ?? Number.NaN,
      inFlightEvents: scrape.value('outbox_relay_in_flight_events') ?? Number.NaN,
      rssBytes: scrape.value('process_resident_memory_bytes') ?? Number.NaN,
      live: (await exhibits.text('/livez')).status === 200,
      ready: (await exhibits.text('/readyz')).status === 200,
    });
    // The length of the outage is what is being tested.
    await sleep(SAMPLE_MS);
  }
  return samples;
}

/** How much the lag grew for each second that passed, between the first sample after `fromMs` and the last. */
export function growth(samples: readonly Sample[], fromMs: number): number {
  const from = samples.find(({ atMs }) => atMs >= fromMs);
  const to = samples.at(-1);
  if (from === undefined || to === undefined || to === from) throw new RangeError('too few samples');
  return ((to.lagSeconds - from.lagSeconds) * 1000) / (to.atMs - from.atMs);
}

/** Bytes between the smallest and the largest resident set after `fromMs`. */
export function memoryRange(samples: readonly Sample[], fromMs: number): number {
  const sizes = samples.filter(({ atMs }) => atMs >= fromMs).map(({ rssBytes }) => rssBytes);
  return Math.max(...sizes) - Math.min(...sizes);
}
