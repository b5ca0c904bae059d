import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { codeCommit } from '../code-commit.ts';
import type { RoundResult } from './round.ts';
import type { Broker, FaultKind, Schedule } from './schedule.ts';

/** A line of the record: one round. */
export interface Line {
  readonly seed: number;
  readonly broker: Broker;
  readonly commit: string;
  readonly at: string;
  readonly seconds: number;
  readonly rate: number;
  /** Large transactions: a kill in the middle of one repeats more of it. */
  readonly bursts: number;
  readonly relays: number;
  readonly faults: readonly FaultKind[];
  readonly committed: number;
  readonly delivered: number;
  readonly lost: number;
  readonly invented: number;
  readonly altered: number;
  readonly outOfOrder: number;
  readonly duplicates: number;
  /** Not told: nobody saw it. 0 in lines up to fa55cdd: not seen, either. */
  readonly recoveredMs?: number | undefined;
  readonly rssMiB: number;
  readonly notMade: readonly string[];
  readonly notUndone?: readonly string[];
  readonly ownExits: number;
  readonly broken: readonly string[];
}

export function toLine(schedule: Schedule, result: RoundResult, seconds: number): Line {
  const { findings, broken, notMade, notUndone, ownExits } = result;
  return {
    seed: schedule.seed,
    broker: schedule.broker,
    commit: codeCommit(),
    at: new Date().toISOString(),
    seconds: Number(seconds.toFixed(1)),
    rate: schedule.load.rate,
    bursts: schedule.load.bursts.length,
    relays: schedule.relays,
    faults: schedule.faults.map(({ kind }) => kind),
    committed: findings.committed,
    delivered: findings.delivered,
    lost: findings.lost.length,
    invented: findings.invented.length,
    altered: findings.altered.length,
    outOfOrder: findings.outOfOrder.length,
    duplicates: findings.duplicates,
    recoveredMs: findings.recoveredMs && Math.round(findings.recoveredMs),
    rssMiB: Math.round(findings.mostRssBytes / 1024 ** 2),
    notMade,
    notUndone,
    ownExits: ownExits.length,
    broken,
  };
}

/** The last one of every seed: one that broke may have been repeated. */
export function readLines(file: string): Line[] {
  if (!existsSync(file)) return [];
  const text = readFileSync(file, 'utf8');
  const lines = text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
  return [...new Map(lines.map((line) => [`${line.broker} ${line.seed}`, line])).values()];
}

export function appendLine(file: string, line: object): void {
  mkdirSync(dirname(file), { recursive: true });
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

/** What it takes to look for the cause of a failure. Returns the folder. */
export function keep(file: string, schedule: Schedule, result: RoundResult): string {
  const folder = join(dirname(file), `random-${schedule.broker}-${schedule.seed}`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'schedule.json'), `${JSON.stringify(schedule, undefined, 2)}\n`);
  writeFileSync(join(folder, 'findings.json'), `${JSON.stringify(result.findings, undefined, 2)}\n`);
  writeFileSync(join(folder, 'relays.log'), `${result.output.join('\n\n')}\n`);
  return folder;
}
