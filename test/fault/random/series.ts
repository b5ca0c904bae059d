import { Arena } from './arena.ts';
import { appendLine, keep, readLines, toLine } from './record.ts';
import { runRound, type RoundResult } from './round.ts';
import { makeSchedule, type Broker, type FaultKind, type Schedule } from './schedule.ts';
import { shrink } from './shrink.ts';

export interface SeriesOptions {
  readonly brokers: readonly Broker[];
  readonly rounds: number;
  readonly seed: number;
  /** No round begins after so many. */
  readonly seconds: number;
  readonly kinds: readonly FaultKind[] | undefined;
  readonly file: string;
  readonly shrinkAttempts: number;
  /** Rounds that broke a promise are repeated. */
  readonly again: boolean;
  readonly say: (line: string) => void;
}

/** Rounds with the seeds that the record has not yet. Returns whether every promise was kept, in earlier runs too. */
export async function runSeries(options: SeriesOptions): Promise<boolean> {
  const endMs = performance.now() + options.seconds * 1000;
  let kept = true;
  for (const broker of options.brokers) {
    const done = readLines(options.file).filter((line) => line.broker === broker);
    const seeds = Array.from({ length: options.rounds }, (_, index) => options.seed + index);
    const counted = options.again ? done.filter((line) => line.broken.length === 0) : done;
    const known = new Map(counted.map((line) => [line.seed, line.broken.length === 0]));
    kept &&= seeds.every((seed) => known.get(seed) !== false);
    const left = seeds.filter((seed) => !known.has(seed));
    if (left.length === 0 || performance.now() > endMs) continue;
    let arena = await Arena.open(broker);
    try {
      for (const seed of left) {
        if (performance.now() > endMs) break;
        const schedule = makeSchedule(seed, broker, options.kinds && { kinds: options.kinds });
        try {
          kept = (await recorded(arena, schedule, options)) && kept;
        } catch (error) {
          // Without a line, so that a later run repeats it; whatever state the servers are in, the next round gets others.
          options.say(
            `NOT JUDGED ${broker} ${seed}: ${error instanceof Error ? error.stack : String(error)}`,
          );
          kept = false;
          await arena.remove();
          arena = await Arena.open(broker);
        }
      }
    } finally {
      await arena.remove();
    }
  }
  return kept;
}

async function recorded(arena: Arena, schedule: Schedule, options: SeriesOptions): Promise<boolean> {
  const startMs = performance.now();
  const result = await runRound(arena, schedule);
  const line = toLine(schedule, result, (performance.now() - startMs) / 1000);
  appendLine(options.file, line);
  options.say(`${line.broken.length === 0 ? 'kept  ' : 'BROKEN'} ${JSON.stringify(line)}`);
  if (result.broken.length === 0) return true;
  await explain(arena, { schedule, result }, options);
  return false;
}

async function explain(
  arena: Arena,
  failure: { schedule: Schedule; result: RoundResult },
  { file, shrinkAttempts, say }: SeriesOptions,
): Promise<void> {
  let { schedule, result } = failure;
  say(`kept in ${keep(file, schedule, result)}`);
  const fails = async (candidate: Schedule): Promise<boolean> => {
    const again = await runRound(arena, candidate);
    if (again.broken.length === 0) return false;
    ({ schedule, result } = { schedule: candidate, result: again });
    return true;
  };
  const smallest = await shrink(schedule, fails, shrinkAttempts);
  say(`seed ${smallest.seed}, smallest schedule that fails: ${JSON.stringify(smallest)}`);
  say(result.broken.join('\n'));
}
