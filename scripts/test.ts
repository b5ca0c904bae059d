import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, statSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';
import { groupFiles, Totals } from './test-groups.ts';
import type { TestEvent } from './test-groups.ts';
import { TestServices } from './test-services.ts';

/**
 * `npm test`: lint, types, format, then every test. `npm test -- test/unit …`: the tests of those folders or files.
 * Ends with exit code 1 also when a test is skipped or marked "to do": a promise that is not checked is not kept.
 */

const CONCURRENCY = 2;
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

/** Events of all groups as one run, so that there is one list of failures and one summary at the end. */
async function* testEvents(options: {
  files: readonly string[];
  totals: Totals;
  signal: AbortSignal;
  closing: () => readonly string[];
}): AsyncGenerator<TestEvent> {
  const { files, totals, signal, closing } = options;
  for (const [group, members] of groupFiles(files)) {
    if (signal.aborted) break;
    const started = performance.now();
    const events = run({
      files: members,
      concurrency: CONCURRENCY,
      timeout: group === 'unit' ? UNIT_TIMEOUT_MS : FILE_TIMEOUT_MS,
      signal,
    });
    for await (const event of events as AsyncIterable<TestEvent>) {
      if (totals.take(event)) yield event;
    }
    yield diagnostic(`${group}: ${members.length} files, ${seconds(started)}`);
  }
  for (const line of closing()) yield diagnostic(line);
  for (const line of totals.summary()) yield diagnostic(line);
}

function diagnostic(message: string): TestEvent {
  return { type: 'test:diagnostic', data: { nesting: 0, message, level: 'info' } } as TestEvent;
}

async function main(paths: readonly string[], signal: AbortSignal): Promise<boolean> {
  const started = performance.now();
  const failedChecks = paths.length === 0 ? await check(signal) : [];
  const services = await TestServices.start(say);
  process.env['TEST_SERVICES'] = services.url;
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
