import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { codeCommit } from '../test/fault/code-commit.ts';
import { assertBrokerOutage, assertDatabaseOutage } from '../test/fault/assert-outage.ts';
import { LEADER_FAULTS } from '../test/fault/leaders.ts';
import type { OutageResult } from '../test/fault/outage.ts';
import { kafkaOutage, postgresOutage, rabbitmqOutage } from '../test/fault/outages.ts';
import { Scene, interruptedDelivery } from '../test/support/crash-run.ts';
import type { BrokerName } from '../test/support/target.ts';
import { runLeaders } from './fault-leaders.ts';
import { mainRandom, RANDOM_USAGE } from './fault-random.ts';
import { complaint, counts, nothingWrong, seeded, type Outcome } from './fault-result.ts';
import { runIdle, runWalLimit } from './fault-slot.ts';
import { runSoak } from './fault-soak.ts';
import { runFirstStart, runHandoverKills, runSwitches } from './fault-switches.ts';

/** One of these names a form of its own; without any, the faults are random. */
const FORMS = [
  'handover-kills',
  'signal',
  'outage',
  'leaders',
  'wal-limit',
  'idle',
  'switches',
  'first-start',
  'soak',
  'help',
];

const USAGE = `The long form of the fault tests.

${RANDOM_USAGE}  npm run fault -- --broker kafka|rabbitmq --signal SIGKILL|SIGTERM [--rounds 20] [--seed 1] [--life 1]
      four writers, 100 keys, 1,000 events a second, 15 % rolled back; the relay is ended at random moments, so many
      seconds to two more after it began to stream
  npm run fault -- --outage kafka|rabbitmq|postgres [--seconds 60] [--times 3]
      the server goes away under load and comes back (PostgreSQL: so many times, half of the commits asynchronous)
  npm run fault -- --leaders ${LEADER_FAULTS.join('|')} --broker kafka|rabbitmq [--rounds 20] [--seed 1]
      three relays, one leader after the other is killed, stopped for 30 s, cut off from PostgreSQL for 10 s, or stopped
      between the question for the lease and the write; 500 events a second, 50 keys
  npm run fault -- --wal-limit 200 [--seconds 60] [--rate 2000]
      the broker is away for so long; what a slot keeps of the log never passes so many MiB by more than a segment
  npm run fault -- --idle [--seconds 60]
      nothing happens in the outbox, much beside it: what the slot keeps of the log does not grow; from 61 s on
  npm run fault -- --switches 50 [--broker kafka|rabbitmq]
      the slot is dropped or given up at its limit again and again: polling, streaming, so many changes of mode
  npm run fault -- --first-start 200000 [--broker kafka|rabbitmq]
      so many rows wait, and writers go on, when a relay starts for the first time
  npm run fault -- --handover-kills 5 [--broker kafka|rabbitmq]
      SIGKILL so many times at every point of the hand-over, of a start without a slot and of a stream that loses it
  npm run fault -- --soak 40 [--broker kafka|rabbitmq] [--rate 1000] [--seed 1]
      two relays live through so many minutes with a fault each; at the end of each minute everything is delivered, and
      what relays, database and broker hold does not grow from the second third to the last; from 27 minutes on

Without --broker both. Each run appends a line to --results (default results/fault.jsonl);
a run that has its line there is not repeated (--again repeats it). Exit code 1 when a promise was broken.
`;

interface Run {
  readonly name: string;
  readonly run: () => Promise<Outcome>;
}

/** On average so many duplicates a kill at 1,000 events a second. */
const AVERAGE_DUPLICATES = 5;
/**
 * From "streaming" on: the backlog of the start is delivered, the flow is steady. A process so young is not compiled yet,
 * and everything between broker and progress row takes longer: `--life` lets it grow warm.
 */
const LEAST_LIFE_S = '1';
const LIFE_SPAN_MS = 2_000;

function options() {
  return parseArgs({
    options: {
      broker: { type: 'string' },
      signal: { type: 'string' },
      rounds: { type: 'string', default: '20' },
      seed: { type: 'string', default: '1' },
      life: { type: 'string', default: LEAST_LIFE_S },
      outage: { type: 'string' },
      'wal-limit': { type: 'string' },
      rate: { type: 'string' },
      idle: { type: 'boolean', default: false },
      switches: { type: 'string' },
      'first-start': { type: 'string' },
      'handover-kills': { type: 'string' },
      soak: { type: 'string' },
      leaders: { type: 'string' },
      seconds: { type: 'string', default: '60' },
      times: { type: 'string', default: '3' },
      results: { type: 'string', default: 'results/fault.jsonl' },
      again: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  }).values;
}

type Options = ReturnType<typeof options>;

function oneOf<T extends string>(
  name: string,
  value: string | undefined,
  allowed: readonly T[],
): readonly T[] {
  if (value === undefined) return allowed;
  const found = allowed.find((each) => each === value);
  if (found === undefined) throw new Error(`--${name} is ${allowed.join(' or ')}`);
  return [found];
}

function whole(name: string, value: string): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < 1) throw new Error(`--${name} is a whole number from 1`);
  return number;
}

function planned(given: Options): Run[] {
  if (given.outage !== undefined) {
    const seconds = whole('seconds', given.seconds);
    const times = whole('times', given.times);
    return oneOf('outage', given.outage, ['kafka', 'rabbitmq', 'postgres']).map((server) => ({
      name: `outage ${server} ${seconds} s${server === 'postgres' ? ` ${times} times` : ''} seed ${given.seed}`,
      run: async () => await runOutage(server, seconds, times),
    }));
  }
  if (given['wal-limit'] !== undefined || given.idle) return plannedOfSlot(given);
  const modes = [given.switches, given['first-start'], given['handover-kills']];
  if (modes.some((each) => each !== undefined)) return plannedOfModes(given);
  const rounds = whole('rounds', given.rounds);
  const seed = whole('seed', given.seed);
  const brokers = oneOf('broker', given.broker, ['kafka', 'rabbitmq']);
  if (given.soak !== undefined) {
    const minutes = whole('soak', given.soak);
    const rate = whole('rate', given.rate ?? '1000');
    return brokers.map((broker) => ({
      name: `soak ${broker} ${minutes} minutes ${rate}/s seed ${seed}`,
      run: async () => await runSoak({ broker, minutes, rate, seed }),
    }));
  }
  if (given.leaders !== undefined) {
    return oneOf('leaders', given.leaders, LEADER_FAULTS).flatMap((fault) =>
      brokers.map((broker) => ({
        name: `leaders ${fault} ${broker} ${rounds} rounds seed ${seed}`,
        run: async () => await runLeaders({ broker, fault, rounds, seed }),
      })),
    );
  }
  const { life } = given;
  return brokers.flatMap((broker) =>
    oneOf('signal', given.signal, ['SIGKILL', 'SIGTERM']).map((signal) => ({
      name: `${broker} ${signal} ${rounds} rounds seed ${seed}${life === LEAST_LIFE_S ? '' : ` life ${life} s`}`,
      run: async () =>
        await runInterrupted({ broker, signal, rounds, seed, leastMs: whole('life', life) * 1_000 }),
    })),
  );
}

function plannedOfSlot(given: Options): Run[] {
  const seconds = whole('seconds', given.seconds);
  if (given.idle)
    return ([18, 14] as const).map((version) => ({
      name: `idle outbox ${seconds} s PostgreSQL ${version}`,
      run: async () => await runIdle(version, seconds),
    }));
  const rate = whole('rate', given.rate ?? '2000');
  const limitMib = whole('wal-limit', given['wal-limit'] ?? '');
  return (['in-use', 'in-the-making'] as const).map((slot) => ({
    name: `wal-limit ${limitMib} MiB ${seconds} s ${rate}/s slot ${slot}`,
    run: async () => await runWalLimit(slot, { seconds, rate, limitMib }),
  }));
}

function plannedOfModes(given: Options): Run[] {
  const { switches, 'first-start': firstStart, 'handover-kills': kills } = given;
  return oneOf('broker', given.broker, ['kafka', 'rabbitmq']).map((broker) => {
    if (switches !== undefined) {
      const count = whole('switches', switches);
      return {
        name: `${broker} ${count} switches seed ${given.seed}`,
        run: async () => await runSwitches(broker, count),
      };
    }
    if (kills !== undefined) {
      const times = whole('handover-kills', kills);
      return {
        name: `${broker} kills at every point of the hand-over ${times} times seed ${given.seed}`,
        run: async () => await runHandoverKills(broker, times),
      };
    }
    const rows = whole('first-start', firstStart ?? '');
    return {
      name: `${broker} first start with ${rows} rows seed ${given.seed}`,
      run: async () => await runFirstStart(broker, rows),
    };
  });
}

async function runInterrupted(run: {
  broker: BrokerName;
  signal: 'SIGKILL' | 'SIGTERM';
  rounds: number;
  seed: number;
  leastMs: number;
}): Promise<Outcome> {
  const { broker, signal, rounds, seed, leastMs } = run;
  const scene = await Scene.open(broker);
  try {
    const { verdict, exits } = await interruptedDelivery(scene, {
      rounds,
      signal,
      lifeMs: [leastMs, leastMs + LIFE_SPAN_MS],
      random: seeded(seed),
    });
    const duplicatesPerRound = verdict.duplicates / rounds;
    const drained = signal === 'SIGKILL' || exits.every((code) => code === 0);
    const few = duplicatesPerRound <= (signal === 'SIGKILL' ? AVERAGE_DUPLICATES : 0);
    return { ...counts(verdict), duplicatesPerRound, exits, kept: nothingWrong(verdict) && drained && few };
  } finally {
    await scene.close();
  }
}

async function runOutage(
  server: 'kafka' | 'rabbitmq' | 'postgres',
  seconds: number,
  times: number,
): Promise<Outcome> {
  const result = await (server === 'kafka'
    ? kafkaOutage(seconds)
    : server === 'rabbitmq'
      ? rabbitmqOutage(seconds)
      : postgresOutage(seconds, times));
  const { verdict, samples, recoveredMs, takenBack } = result;
  const shown = {
    ...counts(verdict),
    takenBack,
    recoveredMs: Math.round(recoveredMs),
    lagSeconds: samples.map(({ lagSeconds }) => Number(lagSeconds.toFixed(1))),
    rssMiB: samples.map(({ rssBytes }) => Math.round(rssBytes / 1_048_576)),
    inFlight: Math.max(...samples.map(({ inFlightEvents }) => inFlightEvents)),
  };
  const broken = complaint(() => assertOutage(server, result, times));
  return { ...shown, ...(broken !== undefined && { broken }), kept: broken === undefined };
}

function assertOutage(server: string, result: OutageResult, times: number): string {
  return server === 'postgres' ? assertDatabaseOutage(result, times) : assertBrokerOutage(result);
}

/** The line that a run of this name left before, so that a series can go on after an interruption. */
function earlier(file: string, name: string): { kept: boolean } | undefined {
  if (!existsSync(file)) return undefined;
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean);
  return lines
    .map((line) => JSON.parse(line) as { name: string; kept: boolean })
    .findLast((line) => line.name === name);
}

async function main(): Promise<number> {
  const args = process.argv.slice(2);
  if (!FORMS.some((form) => args.includes(`--${form}`))) return await mainRandom(args);
  const given = options();
  if (given.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const file = resolve(given.results);
  mkdirSync(dirname(file), { recursive: true });
  let kept = true;
  for (const { name, run } of planned(given)) {
    let line = given.again ? undefined : earlier(file, name);
    if (line === undefined) {
      const startMs = performance.now();
      const result = await run();
      const seconds = Math.round((performance.now() - startMs) / 1000);
      const at = new Date().toISOString();
      line = Object.assign({ name, commit: codeCommit(), at, seconds }, result);
      appendFileSync(file, `${JSON.stringify(line)}\n`);
    }
    kept &&= line.kept;
    process.stdout.write(`${line.kept ? 'kept  ' : 'BROKEN'} ${JSON.stringify(line)}\n`);
  }
  return kept ? 0 : 1;
}

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
  process.exitCode = 2;
}
// Services of this process are ended by its guard; a client's open socket must not keep it alive.
process.exit();
