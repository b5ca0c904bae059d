import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { readPlanted, runPlanted } from '../test/fault/random/planted.ts';
import type { Plant } from '../test/fault/random/plant.ts';
import { PLANTS } from '../test/fault/random/plants.ts';
import { readLines } from '../test/fault/random/record.ts';
import { report, withResults } from '../test/fault/random/report.ts';
import { runSeries } from '../test/fault/random/series.ts';
import { FAULT_KINDS, type Broker } from '../test/fault/random/schedule.ts';
import { SHORT_LIVED_JAVA } from './short-lived-java.ts';

const RANDOM = 'results/random.jsonl';
const PLANTED = 'results/planted.jsonl';
const PAGE = 'docs/reliability.md';

export const RANDOM_USAGE = `  npm run fault -- --rounds 100 [--seed 1] [--broker kafka|rabbitmq] [--seconds 280] [--kinds relay-kill,slot-dropped]
      random faults, drawn from each seed, overlapping, beside every kind of writer; judged from the broker's log and the
      database's own history. Seeds that have their line in --results (default ${RANDOM}) are not repeated.
      A failure prints a smaller schedule and keeps the relays' output; --shrink 0 does not look for one;
      --seconds: no round begins later; --again repeats the rounds that broke a promise
  npm run fault -- --planted all|${PLANTS[0]?.name},… [--rounds 50] [--seconds 280]
      proves the judge: rounds with a relay that has this bug, until it is found; then the same round without the bug
  npm run fault -- --report
      writes the results of both into docs/reliability.md
`;

/** Exit code. */
export async function mainRandom(args: readonly string[]): Promise<number> {
  const given = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string' },
      seed: { type: 'string', default: '1' },
      broker: { type: 'string' },
      planted: { type: 'string' },
      report: { type: 'boolean', default: false },
      again: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '86400' },
      kinds: { type: 'string' },
      shrink: { type: 'string', default: '6' },
      results: { type: 'string' },
    },
  }).values;
  process.env['JAVA_TOOL_OPTIONS'] ??= SHORT_LIVED_JAVA;
  process.env['NODE_COMPILE_CACHE'] ??= resolve('.cache/compiled');
  const seconds = Number(given.seconds);
  if (given.report) {
    writeReport();
    return 0;
  }
  if (given.planted !== undefined) {
    const found = await runPlanted({
      plants: plantsOf(given.planted),
      maxRounds: Number(given.rounds ?? 50),
      seconds,
      file: resolve(given.results ?? PLANTED),
      say,
    });
    return found ? 0 : 1;
  }
  const kinds = given.kinds?.split(',');
  const known = FAULT_KINDS.filter((kind) => kinds?.includes(kind));
  if (kinds !== undefined && known.length !== kinds.length)
    throw new Error(`--kinds are ${FAULT_KINDS.join(', ')}`);
  const kept = await runSeries({
    brokers: brokersOf(given.broker),
    rounds: Number(given.rounds ?? 20),
    seed: Number(given.seed),
    seconds,
    kinds: kinds && known,
    file: resolve(given.results ?? RANDOM),
    shrinkAttempts: Number(given.shrink),
    again: given.again,
    say,
  });
  return kept ? 0 : 1;
}

function writeReport(): void {
  const results = report(readLines(resolve(RANDOM)), readPlanted(resolve(PLANTED)));
  writeFileSync(PAGE, withResults(readFileSync(PAGE, 'utf8'), results));
  execFileSync('node_modules/.bin/oxfmt', [PAGE]);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function plantsOf(names: string): readonly Plant[] {
  if (names === 'all') return PLANTS;
  return names.split(',').map((name) => {
    const plant = PLANTS.find((each) => each.name === name);
    if (plant === undefined)
      throw new Error(`--planted is all, or of ${PLANTS.map((each) => each.name).join(', ')}`);
    return plant;
  });
}

function brokersOf(name: string | undefined): readonly Broker[] {
  if (name === undefined) return ['kafka', 'rabbitmq'];
  if (name !== 'kafka' && name !== 'rabbitmq') throw new Error('--broker is kafka or rabbitmq');
  return [name];
}
