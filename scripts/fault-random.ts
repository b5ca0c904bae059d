import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { runSeries } from '../test/fault/random/series.ts';
import { FAULT_KINDS, type Broker } from '../test/fault/random/schedule.ts';

export const RANDOM_USAGE = `  npm run fault -- --rounds 100 [--seed 1] [--broker kafka|rabbitmq] [--seconds 280] [--kinds relay-kill,slot-dropped]
      random faults, drawn from each seed, overlapping, beside every kind of writer; judged from the broker's log and the
      database's own history. Seeds that have their line in --results (default results/random.jsonl) are not repeated.
      A failure prints a smaller schedule and keeps the relays' output; --shrink 0 does not look for one;
      --seconds: no round begins later
`;

/** Exit code. */
export async function mainRandom(args: readonly string[]): Promise<number> {
  const given = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string', default: '20' },
      seed: { type: 'string', default: '1' },
      broker: { type: 'string' },
      seconds: { type: 'string', default: '86400' },
      kinds: { type: 'string' },
      shrink: { type: 'string', default: '6' },
      results: { type: 'string', default: 'results/random.jsonl' },
    },
  }).values;
  process.env['JAVA_TOOL_OPTIONS'] ??= '-XX:TieredStopAtLevel=1';
  process.env['NODE_COMPILE_CACHE'] ??= resolve('.cache/compiled');
  const kinds = given.kinds?.split(',');
  const known = FAULT_KINDS.filter((kind) => kinds?.includes(kind));
  if (kinds !== undefined && known.length !== kinds.length)
    throw new Error(`--kinds are ${FAULT_KINDS.join(', ')}`);
  const kept = await runSeries({
    brokers: brokersOf(given.broker),
    rounds: Number(given.rounds),
    seed: Number(given.seed),
    seconds: Number(given.seconds),
    kinds: kinds && known,
    file: resolve(given.results),
    shrinkAttempts: Number(given.shrink),
    say: (line) => void process.stdout.write(`${line}\n`),
  });
  return kept ? 0 : 1;
}

function brokersOf(name: string | undefined): readonly Broker[] {
  if (name === undefined) return ['kafka', 'rabbitmq'];
  if (name !== 'kafka' && name !== 'rabbitmq') throw new Error('--broker is kafka or rabbitmq');
  return [name];
}
