import { execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { startKafka } from '../../src/demo/services/kafka.ts';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import { startRabbitmq } from '../../src/demo/services/rabbitmq.ts';
import { kafkaBenchTarget, rabbitmqBenchTarget, type BenchTarget } from './broker.ts';
import { capacity, latencyCurve } from './curve.ts';
import { drain } from './drain.ts';
import { latency } from './latency.ts';
import { median } from '../support/statistics.ts';
import { comparePeers } from './peers/compare.ts';
import { pollCost } from './poll-cost.ts';
import { tenthsOfDrain } from './tenths.ts';
import { amqplibAlone, kafkajsAlone, pgRecvlogical, platformaticAlone } from './references.ts';

const USAGE = `How fast the relay is, beside its references in the same run. Trust the ratios: the machine's noise moves all figures of
a run together. What the relay delivers is checked for gaps, order and duplicates, and a run with any of them fails.

  npm run bench [-- --events 300000 --seconds 15 --rounds 3 --repeat 1]
      everything of recvlogical, kafka, latency, rabbitmq; some with --only kafka,latency
  npm run bench -- --only curve [--seconds 15]
      delay from 100 events a second to 80 % of what writers and relay reach together
  npm run bench -- --only sizes [--cleanup delete|none]
      drain with payloads of 100 B to 100 kB
  npm run bench -- --only tenths --events 10000000 [--cleanup delete|none]
      a long drain by tenths: does it slow down or grow?
  npm run bench -- --only poll-cost --events 1000000 --seconds 60
      what a poll costs after so many rows were removed
  npm run bench -- --peers [--only drain,latency,kills --rounds 3 --kills 6]
      beside Debezium; needs Java 17 and Maven
`;

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '300000' },
    only: { type: 'string' },
    peers: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '3' },
    cleanup: { type: 'string', default: 'delete' },
    kills: { type: 'string', default: '6' },
    seconds: { type: 'string', default: '15' },
    repeat: { type: 'string', default: '1' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  process.stdout.write(USAGE);
  process.exit();
}
const PARTS = {
  alone: ['recvlogical', 'kafka', 'latency', 'curve', 'sizes', 'tenths', 'rabbitmq', 'poll-cost'],
  peers: ['drain', 'latency', 'kills'],
};
const events = Number(values.events);
const keys = 1000;
const known = values.peers ? PARTS.peers : PARTS.alone;
const everything = values.peers ? known : ['recvlogical', 'kafka', 'latency', 'rabbitmq'];
const parts = new Set(values.only?.split(',') ?? everything);
const unknown = [...parts].filter((part) => !known.includes(part));
if (unknown.length > 0 || !['delete', 'none'].includes(values.cleanup)) {
  process.stderr.write(`not known: ${unknown.join(', ') || `--cleanup ${values.cleanup}`}\n\n${USAGE}`);
  process.exit(2);
}
const print = (name: string, figures: Record<string, number | undefined>): void => {
  const shown = Object.entries(figures)
    .filter(([, value]) => value !== undefined)
    .map(
      ([unit, value]) => `${(value as number).toLocaleString('en', { maximumFractionDigits: 2 })} ${unit}`,
    );
  console.log(`${name.padEnd(44)} ${shown.join('  ')}`);
};

execFileSync('npm', ['run', '--silent', 'build'], { stdio: 'inherit' });
const postgres = await startPostgres({ settings: { max_wal_size: '8GB', shared_buffers: '512MB' } });
const wantsKafka =
  values.peers ||
  ['recvlogical', 'kafka', 'latency', 'curve', 'sizes', 'tenths'].some((part) => parts.has(part));
const kafka = wantsKafka ? await startKafka({ heapMb: 1024 }) : undefined;
const rabbitmq = parts.has('rabbitmq') ? await startRabbitmq() : undefined;

async function withTarget<T>(
  target: Promise<BenchTarget>,
  action: (target: BenchTarget) => Promise<T>,
): Promise<T> {
  const opened = await target;
  try {
    return await action(opened);
  } finally {
    await opened.drop();
  }
}

/** Polling sends little at a time: there the client makes no difference. */
const KAFKA_CLIENTS = [
  { client: 'kafkajs', alone: kafkajsAlone, modes: ['streaming/none', 'streaming/delete', 'polling/delete'] },
  { client: 'platformatic', alone: platformaticAlone, modes: ['streaming/none', 'streaming/delete'] },
] as const;

async function benchKafka(brokers: string[]): Promise<void> {
  for (const { client, alone: measure, modes } of KAFKA_CLIENTS) {
    const alone = await withTarget(kafkaBenchTarget(brokers), (target) =>
      measure(brokers, target, { events, keys, batch: 6_000 }),
    );
    print(`${client} alone, from memory`, {
      'events/s': alone.eventsPerSecond,
      'µs CPU': alone.cpuMicrosPerEvent,
    });
    for (const mode of modes) {
      const [source = '', cleanup = ''] = mode.split('/');
      const env = { SOURCE: source, CLEANUP: cleanup, KAFKA_CLIENT: client };
      const result = await withTarget(kafkaBenchTarget(brokers), (target) =>
        drain(postgres.url, target, { events, keys, env }),
      );
      print(`${source} by ${client}, CLEANUP=${cleanup}`, {
        'events/s': result.eventsPerSecond,
        'µs CPU': result.cpuMicrosPerEvent,
        'MB peak': result.peakRssMb,
        'ms to first': result.firstDeliveryMs,
        '× alone': result.eventsPerSecond / alone.eventsPerSecond,
      });
    }
  }
}

async function benchLatency(brokers: string[]): Promise<void> {
  for (const rate of [500, 3000]) {
    const result = await withTarget(kafkaBenchTarget(brokers), (target) =>
      latency(postgres.url, target, { rate, seconds: Number(values.seconds) }),
    );
    print(`insert to append in Kafka, ${rate}/s`, {
      'ms p50': result.p50Ms,
      'ms p99': result.p99Ms,
      'ms max': result.maxMs,
      '% CPU': result.cpuPercent,
    });
  }
}

async function benchCurve(brokers: string[]): Promise<void> {
  const serverUrl = postgres.url;
  const mostRate = await withTarget(kafkaBenchTarget(brokers), (target) => capacity({ serverUrl, target }));
  print('writers and relay together, Kafka', { 'events/s': mostRate });
  const points = await withTarget(kafkaBenchTarget(brokers), (target) =>
    latencyCurve({ serverUrl, target }, { mostRate, seconds: Number(values.seconds) }),
  );
  for (const { rate, p50Ms, p99Ms, maxMs, cpuPercent } of points) {
    print(`insert to append in Kafka, ${rate}/s`, {
      '% of the most': (rate / mostRate) * 100,
      'ms p50': p50Ms,
      'ms p99': p99Ms,
      'ms max': maxMs,
      '% CPU': cpuPercent,
    });
  }
}

/** Bytes of a payload. */
const SIZES = [100, 300, 1_000, 10_000, 100_000];
/** Of large payloads fewer events are enough. */
const MOST_BYTES = 400_000_000;

async function benchSizes(brokers: string[]): Promise<void> {
  for (const bytes of SIZES) {
    const count = Math.min(events, MOST_BYTES / bytes);
    const result = await withTarget(kafkaBenchTarget(brokers), (target) =>
      drain(postgres.url, target, { events: count, keys, bytes, env: { CLEANUP: values.cleanup } }),
    );
    print(`${count} payloads of ${bytes} bytes, CLEANUP=${values.cleanup}`, {
      'events/s': result.eventsPerSecond,
      'MB/s': (result.eventsPerSecond * bytes) / 1e6,
      'µs CPU': result.cpuMicrosPerEvent,
      'MB peak': result.peakRssMb,
    });
  }
}

/** Before anything counts: the server's first messages are its fastest. */
const WARM_UP_EVENTS = 100_000;

/** In turns, because a server slows down with what it has written: a ratio is the median of the rounds'. */
async function benchRabbitmq(url: string): Promise<void> {
  const alone = async (type: 'classic' | 'quorum', count: number) =>
    await withTarget(rabbitmqBenchTarget(url, type), (target) =>
      amqplibAlone(url, target, { events: count, keys, window: 1000 }),
    );
  for (const type of ['classic', 'quorum'] as const) {
    await alone(type, WARM_UP_EVENTS);
    const ratios = { none: [] as number[], delete: [] as number[] };
    for (let round = 0; round < Number(values.rounds); round++) {
      const reference = await alone(type, events);
      print(`amqplib alone, confirms, ${type} queue`, {
        'events/s': reference.eventsPerSecond,
        'µs CPU': reference.cpuMicrosPerEvent,
      });
      for (const cleanup of ['none', 'delete'] as const) {
        const result = await withTarget(rabbitmqBenchTarget(url, type), (target) =>
          drain(postgres.url, target, { events, keys, env: { CLEANUP: cleanup } }),
        );
        const ratio = result.eventsPerSecond / reference.eventsPerSecond;
        ratios[cleanup].push(ratio);
        print(`relay to RabbitMQ, ${type} queue, CLEANUP=${cleanup}`, {
          'events/s': result.eventsPerSecond,
          'µs CPU': result.cpuMicrosPerEvent,
          'MB peak': result.peakRssMb,
          '× amqplib alone': ratio,
        });
      }
    }
    print(`median, ${type} queue`, {
      '× amqplib alone, none': median(ratios.none),
      delete: median(ratios.delete),
    });
  }
}

async function benchPollCost(): Promise<void> {
  for (const [cleanup, heldSnapshot] of [
    ['delete', true],
    ['mark', true],
    ['mark', false],
  ] as const) {
    const seconds = Number(values.seconds);
    const cost = await pollCost(postgres.url, { cleanup, heldSnapshot, rows: events, seconds });
    const what = `${events} rows, ${heldSnapshot ? 'under an old snapshot' : 'vacuumed'}`;
    print(`a poll after ${what}, CLEANUP=${cleanup}`, {
      polls: cost.polls,
      'ms p50': cost.p50Ms,
      'ms p99': cost.p99Ms,
      'ms max': cost.maxMs,
      'ms p99 of select 1': cost.nothingP99Ms,
    });
  }
}

async function benchTenths(server: { brokers: string[]; pids: () => number[] }): Promise<void> {
  const tenths = await withTarget(kafkaBenchTarget(server.brokers), (target) =>
    tenthsOfDrain(
      { serverUrl: postgres.url, target, postmaster: postgres.pid(), broker: server.pids()[0] as number },
      { events, cleanup: values.cleanup },
    ),
  );
  for (const [index, { eventsPerSecond, peakRssMb, cpu }] of tenths.entries()) {
    const cores = Object.entries(cpu).map(([name, share]) => [`% ${name}`, share * 100] as const);
    print(`tenth ${index + 1} of ${events} events, CLEANUP=${values.cleanup}`, {
      'events/s': eventsPerSecond,
      'MB peak': peakRssMb,
      ...Object.fromEntries(cores),
    });
  }
}

async function benchPeers(brokers: string[]): Promise<void> {
  await comparePeers({
    serverUrl: postgres.url,
    brokers,
    events,
    rounds: Number(values.rounds),
    seconds: Number(values.seconds),
    kills: Number(values.kills),
    parts,
  });
}

try {
  if (kafka && values.peers) await benchPeers(kafka.brokers);
  else await benchAlone();
} finally {
  await rabbitmq?.remove();
  await kafka?.remove();
  await postgres.remove();
}

async function benchAlone(): Promise<void> {
  for (let run = 0; run < Number(values.repeat); run++) {
    if (kafka && parts.has('recvlogical')) {
      const rate = await withTarget(kafkaBenchTarget(kafka.brokers), (target) =>
        pgRecvlogical(postgres.url, { events, keys, env: target.env }),
      );
      print('pg_recvlogical alone, to /dev/null', { 'events/s': rate });
    }
    if (kafka && parts.has('kafka')) await benchKafka(kafka.brokers);
    if (kafka && parts.has('latency')) await benchLatency(kafka.brokers);
    if (kafka && parts.has('curve')) await benchCurve(kafka.brokers);
    if (kafka && parts.has('sizes')) await benchSizes(kafka.brokers);
    if (kafka && parts.has('tenths')) await benchTenths(kafka);
    if (parts.has('poll-cost')) await benchPollCost();
    if (rabbitmq && parts.has('rabbitmq')) await benchRabbitmq(rabbitmq.url);
  }
}
