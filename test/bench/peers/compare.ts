import { kafkaBenchTarget, type BenchTarget } from '../broker.ts';
import { outboxRelay, type Contender } from '../contender.ts';
import { drainTwice, type DrainResult } from '../drain.ts';
import { latencies, type LatencyResult } from '../latency.ts';
import { median } from '../../support/statistics.ts';
import { CONNECT_VERSION, debezium, DEBEZIUM_SETTINGS, DEBEZIUM_VERSION } from './debezium.ts';
import { killCost } from './kill-cost.ts';
import { table } from './table.ts';

const KEYS = 1000;
const RATES = [500, 3000] as const;
const WARM_UP_EVENTS = 100_000;
const KILL_RATE = 1000;

/** Looked for and not here; printed below the table, so that nobody takes silence for a comparison. */
const NOT_MEASURED = [
  'go-pq-cdc-kafka, wal-listener (Go): their modules could not be fetched',
  'outboxx (Zig), Sequin, PeerDB: in no package registry',
  'pg-transactional-outbox (npm), walbox (PyPI): a listener for your own code, without a broker',
];

export interface PeersOptions {
  readonly serverUrl: string;
  readonly brokers: string[];
  readonly events: number;
  readonly rounds: number;
  readonly seconds: number;
  readonly kills: number;
  /** `drain`, `latency`, `kills`. */
  readonly parts: ReadonlySet<string>;
}

/** Ours and its peers in turns: same table, same backlog, same broker, acks=all, each run checked by the same reader. */
export async function comparePeers(options: PeersOptions): Promise<void> {
  const contenders: Entry[] = [
    {
      contender: outboxRelay('outbox-relay, rows stay', { CLEANUP: 'none' }, { rests: true }),
      deletes: false,
    },
    { contender: outboxRelay('outbox-relay, rows stay (A/A)', { CLEANUP: 'none' }), deletes: false },
    { contender: await debezium(), deletes: false },
    { contender: outboxRelay('outbox-relay, rows deleted', { CLEANUP: 'delete' }), deletes: true },
  ];
  console.log(`Debezium ${DEBEZIUM_VERSION} on Kafka Connect ${CONNECT_VERSION}: ${DEBEZIUM_SETTINGS}`);
  if (options.parts.has('drain')) await compareDrains(contenders, options);
  // The second run of the same is for the noise of the drain alone.
  const once = contenders.filter((_, index) => index !== 1);
  if (options.parts.has('latency')) await compareLatencies(once, options);
  if (options.parts.has('kills')) await compareKills(once, options);
  for (const peer of NOT_MEASURED) console.log(`not measured: ${peer}`);
}

interface Entry {
  readonly contender: Contender;
  readonly deletes: boolean;
}

async function withTopic<T>(
  { serverUrl, brokers }: PeersOptions,
  action: (place: { serverUrl: string; target: BenchTarget }) => Promise<T>,
): Promise<T> {
  const target = await kafkaBenchTarget(brokers);
  try {
    return await action({ serverUrl, target });
  } finally {
    await target.drop();
  }
}

async function compareDrains(contenders: readonly Entry[], options: PeersOptions): Promise<void> {
  const results = new Map<string, DrainResult[]>();
  // Not counted: the first run after the broker's start is slower, whoever makes it.
  const warmUp = outboxRelay('warm-up', { CLEANUP: 'none' });
  await withTopic(
    options,
    async (place) => await drainTwice(place, warmUp, { events: WARM_UP_EVENTS, keys: KEYS, deletes: false }),
  );
  for (let round = 0; round < options.rounds; round++) {
    for (const { contender, deletes } of contenders) {
      const { asStarted, warm } = await withTopic(
        options,
        async (place) => await drainTwice(place, contender, { events: options.events, keys: KEYS, deletes }),
      );
      const suffix = warm ? ', as started' : '';
      add(results, `${contender.name}${suffix}`, asStarted);
      if (warm) add(results, `${contender.name}, warm`, warm);
    }
  }
  // Ours as it was started, everyone in turn: the figure against us.
  const ours = median([...results.values()][0]?.map(({ eventsPerSecond }) => eventsPerSecond) ?? []);
  const rows = [...results].map(([name, runs]) => {
    const of = (figure: (run: DrainResult) => number): number => median(runs.map(figure));
    const rate = of((run) => run.eventsPerSecond);
    return [
      name,
      rate,
      ours / rate,
      of((run) => run.cpuMicrosPerEvent),
      of((run) => run.peakRssMb),
      of((run) => run.firstDeliveryMs ?? Number.NaN),
      runs.map((run) => Math.round(run.eventsPerSecond / 1000)).join(' '),
    ];
  });
  const titles = ['events/s', 'ours is ×', 'µs CPU', 'MB peak', 'ms to first', 'each run, k/s'];
  console.log(table(`drain of ${options.events} events, median of ${options.rounds}`, titles, rows));
}

/** Told at once: a run that is broken off has its first figures. */
function add<T>(results: Map<string, T[]>, name: string, result: T): void {
  results.set(name, [...(results.get(name) ?? []), result]);
  console.log(`${name}: ${JSON.stringify(result)}`);
}

async function compareLatencies(contenders: readonly Entry[], options: PeersOptions): Promise<void> {
  const rows: (string | number)[][] = [];
  for (const { contender } of contenders) {
    const load = { rates: RATES, seconds: options.seconds, warmUpEvents: WARM_UP_EVENTS };
    const results = await withTopic(options, async (place) => await latencies(place, contender, load));
    rows.push([contender.name, ...results.flatMap(figuresOf)]);
  }
  const titles = RATES.flatMap((rate) => [`p50 ${rate}/s`, `p99 ${rate}/s`, `max ${rate}/s`, `% CPU`]);
  console.log(table(`insert to append, ms, ${options.seconds} s each, open loop, warm`, titles, rows));
}

function figuresOf({ p50Ms, p99Ms, maxMs, cpuPercent }: LatencyResult): number[] {
  return [p50Ms, p99Ms, maxMs, cpuPercent];
}

async function compareKills(contenders: readonly Entry[], options: PeersOptions): Promise<void> {
  const rows: (string | number)[][] = [];
  for (const { contender } of contenders) {
    const cost = await withTopic(
      options,
      async (place) =>
        await killCost(place, contender, { kills: options.kills, rate: KILL_RATE, random: Math.random }),
    );
    const { events, duplicatesPerKill, maxDuplicates, lost, inverted, backAfterMs } = cost;
    rows.push([contender.name, duplicatesPerKill, maxDuplicates, lost, inverted, backAfterMs, events]);
  }
  const titles = ['duplicates/kill', 'most', 'lost', 'inverted', 'ms to be back', 'events'];
  console.log(table(`${options.kills} times SIGKILL at ${KILL_RATE} events/s`, titles, rows));
}
