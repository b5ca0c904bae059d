import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';
import { groupOf, inOrder, timeLines, Totals } from './test-groups.ts';
import type { FileTime, TestEvent } from './test-groups.ts';
import { runInLanes } from './test-lanes.ts';
import { TestServices } from './test-services.ts';
import { SHORT_LIVED_JAVA } from './short-lived-java.ts';

/**
 * `npm test`: lint, types, format, then every test. `npm test -- test/unit …`: the tests of those folders or files.
 * Ends with exit code 1 also when a test is skipped or marked "to do": a promise that is not checked is not kept.
 */

/** Unit tests keep a core busy each; the others wait for servers and deadlines half of the time. */
const UNIT_LANES = Math.max(2, availableParallelism());
const SERVER_LANES = UNIT_LANES + 1;
const FILE_TIMEOUT_MS = 600_000;
/** They need nothing and nobody: one that takes longer hangs. */
const UNIT_TIMEOUT_MS = 60_000;

const CHECKS: readonly (readonly [name: string, command: string, args: readonly string[]])[] = [
  ['lint', 'oxlint', ['--type-aware', '--deny-warnings']],
  ['types', 'tsc', ['--noEmit']],
  ['format', 'oxfmt', ['--check']],
];

function seconds(sinceMs: number): string {
  return `${((performance.now() - sinceMs) / 1000).toFixed(1)} s`;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function check(signal: AbortSignal): Promise<string[]> {
  const failed: string[] = [];
  for (const [name, command, args] of CHECKS) {
    if (signal.aborted) break;
    const started = performance.now();
    const child = spawn(`node_modules/.bin/${command}`, [...args], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    const [code] = (await once(child, 'exit')) as [number | null];
    say(`${code === 0 ? '✔' : '✖'} ${name} (${seconds(started)})`);
    if (code !== 0) failed.push(name);
  }
  return failed;
}

function testFiles(paths: readonly string[]): string[] {
  return paths.flatMap((path) => {
    const files = statSync(path).isDirectory() ? globSync(`${path}/**/*.test.ts`) : [path];
    if (files.length === 0) throw new Error(`no test in ${path}`);
    return files;
  });
}

function isUnit(file: string): boolean {
  return groupOf(file) === 'test/unit';
}

/** Events of all files as one run, so that there is one list of failures and one summary at the end. */
async function* testEvents(options: {
  files: readonly string[];
  totals: Totals;
  signal: AbortSignal;
  closing: () => readonly string[];
}): AsyncGenerator<TestEvent> {
  const { files, totals, signal, closing } = options;
  const startMs = performance.now();
  const unit = { count: UNIT_LANES, fileTimeoutMs: UNIT_TIMEOUT_MS, signal };
  const others = { count: SERVER_LANES, fileTimeoutMs: FILE_TIMEOUT_MS, signal };
  const phases = [
    runInLanes(inOrder(files.filter(isUnit)), unit),
    runInLanes(inOrder(files.filter((file) => !isUnit(file))), others),
  ];
  const times: FileTime[] = [];
  for (const phase of phases) {
    for await (const { file, seconds: took, events } of phase) {
      times.push({ file, seconds: took });
      yield* events.filter((event) => totals.take(event));
    }
  }
  const summary = totals.summary(performance.now() - startMs);
  for (const line of [...timeLines(times), ...closing(), ...summary]) yield diagnostic(line);
}

function diagnostic(message: string): TestEvent {
  return { type: 'test:diagnostic', data: { nesting: 0, message, level: 'info' } } as TestEvent;
}

async function main(paths: readonly string[], signal: AbortSignal): Promise<boolean> {
  const started = performance.now();
  const failedChecks = paths.length === 0 ? await check(signal) : [];
  const services = await TestServices.start(say);
  process.env['TEST_SERVICES'] = services.url;
  process.env['JAVA_TOOL_OPTIONS'] ??= SHORT_LIVED_JAVA;
  // Hundreds of processes load the same files: their types are stripped and their code is compiled once.
  process.env['NODE_COMPILE_CACHE'] ??= resolve('.cache/compiled');
  const totals = new Totals();
  try {
    const closing = (): string[] => [
      ...failedChecks.map((name) => `FAILED: ${name}`),
      ...totals.unchecked.map((name) => `FAILED, because it was skipped or is to do: ${name}`),
      `all: ${seconds(started)}`,
    ];
    const files = testFiles(paths.length === 0 ? ['test'] : paths);
    const events = testEvents({ files, totals, signal, closing });
    await pipeline(Readable.from(events), new spec(), process.stdout, { end: false });
  } finally {
    await services.remove();
  }
  return !signal.aborted && failedChecks.length === 0 && totals.passed;
}

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    say(`${name}: ending the tests and their servers`);
    interrupted.abort();
  });
}
process.exitCode = (await main(process.argv.slice(2), interrupted.signal)) ? 0 : 1;
