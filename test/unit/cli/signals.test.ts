import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, it } from 'node:test';

const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));

let started: ChildProcess | undefined;
afterEach(() => started?.kill('SIGKILL'));

/** Starts the real main file with this text as its `run` command; resolves when the command has printed "ready". */
async function start(command: string): Promise<{ child: ChildProcess; output: () => string }> {
  const url = `data:text/javascript,${encodeURIComponent(command)}`;
  const preload = `import { registerHooks } from 'node:module';
    registerHooks({ resolve: (name, context, next) =>
      name.endsWith('cli/run.ts') ? { url: ${JSON.stringify(url)}, shortCircuit: true } : next(name, context) });`;
  const args = ['--import', `data:text/javascript,${encodeURIComponent(preload)}`, MAIN];
  const child = spawn(process.execPath, args, { env: {}, stdio: ['ignore', 'pipe', 'inherit'] });
  started = child;
  let output = '';
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (chunk: string) => (output += chunk));
  while (!output.includes('ready')) await once(child.stdout, 'data');
  return { child, output: () => output };
}

async function exitOf(child: ChildProcess): Promise<unknown> {
  const [code] = (await once(child, 'close')) as [number | null];
  return code;
}

const DRAINS = `export async function run({ signal, stdout }) {
  setInterval(() => undefined, 1000);
  stdout.write('ready');
  await new Promise((resolve) => signal.addEventListener('abort', resolve));
  stdout.write(' ' + signal.reason + 'x'.repeat(1_000_000));
  return 7;
}`;

const IGNORES = `export async function run({ signal, stdout }) {
  setInterval(() => undefined, 1000);
  signal.addEventListener('abort', () => stdout.write(' draining'));
  stdout.write('ready');
  await new Promise(() => undefined);
}`;

// A process that ignores its signals must fail the test, not hold it up.
describe('signals', { timeout: 30_000 }, () => {
  it('P4 the first SIGTERM drains; the exit code is the command’s, forgotten handles hold nothing, no output is cut', async () => {
    const { child, output } = await start(DRAINS);
    child.kill('SIGTERM');
    assert.equal(await exitOf(child), 7);
    assert.equal(output(), `ready drain${'x'.repeat(1_000_000)}`);
  });

  for (const [signal, exitCode] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const) {
    it(`a second ${signal} ends at once with exit code ${exitCode}`, async () => {
      const { child, output } = await start(IGNORES);
      child.kill(signal);
      while (!output().includes('draining')) await once(child.stdout ?? child, 'data');
      child.kill(signal);
      assert.equal(await exitOf(child), exitCode);
    });
  }
});
