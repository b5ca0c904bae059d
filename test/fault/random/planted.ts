import { cpSync, existsSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { ServiceFolder } from '../../../src/demo/services/folder.ts';
import { codeCommit } from '../code-commit.ts';
import { Arena } from './arena.ts';
import type { Edit, Plant } from './plant.ts';
import { runRound } from './round.ts';
import type { Broker } from './schedule.ts';
import { appendLine } from './record.ts';

/** A line of the record: one planted bug. */
export interface PlantedLine {
  readonly plant: string;
  readonly describes: string;
  readonly broker: Broker;
  readonly commit: string;
  readonly at: string;
  readonly seconds: number;
  /** So many rounds it took; undefined: it was not found. */
  readonly rounds: number | undefined;
  readonly seed: number | undefined;
  /** What the checker said. */
  readonly complaints: readonly string[];
  /** What it said about the relay without the bug in the round that found it: nothing. */
  readonly control: readonly string[];
}

export interface PlantedOptions {
  readonly plants: readonly Plant[];
  readonly maxRounds: number;
  readonly seconds: number;
  readonly file: string;
  readonly say: (line: string) => void;
}

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** Enough for a relay without a bug, as the control shows. */
const DRAIN_TIMEOUT_MS = 25_000;

/** Returns whether every bug was found, in earlier runs too. */
export async function runPlanted(options: PlantedOptions): Promise<boolean> {
  const endMs = performance.now() + options.seconds * 1000;
  let found = true;
  for (const broker of ['rabbitmq', 'kafka'] as const) {
    const known = new Map(readPlanted(options.file).map((line) => [line.plant, isFound(line)]));
    const plants = options.plants.filter((plant) => plant.broker === broker);
    found &&= plants.every(({ name }) => known.get(name) !== false);
    const left = plants.filter(({ name }) => known.get(name) !== true);
    if (left.length === 0 || performance.now() > endMs) continue;
    const arena = await Arena.open(broker);
    try {
      for (const plant of left) {
        if (performance.now() > endMs) return false;
        const line = await search(arena, plant, options);
        appendLine(options.file, line);
        const kept = isFound(line);
        options.say(`${kept ? 'found ' : 'MISSED'} ${JSON.stringify(line)}`);
        found &&= kept;
      }
    } finally {
      await arena.remove();
    }
  }
  return found;
}

/** Complained about, and the same round without the bug was not. */
function isFound({ rounds, control }: PlantedLine): boolean {
  return rounds !== undefined && control.length === 0;
}

/** Rounds with the bug until the checker complains, then the same round without it. */
export async function search(
  arena: Arena,
  plant: Plant,
  { maxRounds, firstSeed = 1 }: { readonly maxRounds: number; readonly firstSeed?: number },
): Promise<PlantedLine> {
  const startMs = performance.now();
  const copy = new PlantedCopy(plant.edits);
  const limits = { drainTimeoutMs: DRAIN_TIMEOUT_MS, ...plant.options };
  const line = (
    seed: number | undefined,
    outcome: Pick<PlantedLine, 'rounds' | 'complaints' | 'control'>,
  ): PlantedLine => ({
    plant: plant.name,
    describes: plant.describes,
    broker: plant.broker,
    commit: codeCommit(),
    at: new Date().toISOString(),
    seconds: Math.round((performance.now() - startMs) / 1000),
    seed,
    ...outcome,
  });
  try {
    for (let rounds = 1; rounds <= maxRounds; rounds++) {
      const seed = firstSeed + rounds - 1;
      const schedule = plant.schedule(seed);
      const { broken } = await runRound(arena, schedule, { ...limits, main: copy.main });
      if (broken.length === 0) continue;
      const control = await runRound(arena, schedule, limits);
      return line(seed, { rounds, complaints: broken, control: control.broken });
    }
    return line(undefined, { rounds: undefined, complaints: [], control: [] });
  } finally {
    await copy.remove();
  }
}

/** The sources with a bug in them, in a folder of its own that is gone when this process ends. */
class PlantedCopy {
  /** URL of its main file. */
  readonly main: string;
  private readonly folder = new ServiceFolder('planted');

  constructor(edits: readonly Edit[]) {
    const { path } = this.folder;
    cpSync(join(ROOT, 'src'), join(path, 'src'), { recursive: true });
    cpSync(join(ROOT, 'package.json'), join(path, 'package.json'));
    symlinkSync(join(ROOT, 'node_modules'), join(path, 'node_modules'));
    for (const edit of edits) {
      const file = join(path, 'src', edit.file);
      writeFileSync(file, applyEdit(readFileSync(file, 'utf8'), edit));
    }
    this.main = pathToFileURL(join(path, 'src/main.ts')).href;
  }

  async remove(): Promise<void> {
    await this.folder.remove();
  }
}

/** Throws when what it looks for is not there exactly once: a bug that was not planted would never be found. */
export function applyEdit(text: string, { file, search: wanted, replace }: Edit): string {
  const places = text.split(wanted).length - 1;
  if (places !== 1) throw new Error(`src/${file} has "${wanted}" ${places} times`);
  return text.replace(wanted, () => replace);
}

export function readPlanted(file: string): PlantedLine[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean);
  return lines.map((line) => JSON.parse(line) as PlantedLine);
}
