import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inOrder } from '../../../scripts/test-groups.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const launcher = `${root}scripts/with-dependencies.mjs`;
const echo = fileURLToPath(new URL('fixtures/echo.ts', import.meta.url));
const unchecked = 'test/unit/scripts/fixtures/unchecked.ts';

// Node's test runner tells its children by this variable that they belong to it.
const { NODE_TEST_CONTEXT: _, ...env } = process.env;

function runTests(
  args: readonly string[],
  more: NodeJS.ProcessEnv = {},
): { status: number | null; stdout: string } {
  return spawnSync(process.execPath, [`${root}scripts/test.ts`, ...args], {
    env: { ...env, ...more },
    encoding: 'utf8',
  });
}

test("launcher: runs the project's Node, passes arguments and the exit code", () => {
  const { stdout, status } = spawnSync(process.execPath, [launcher, echo, 'exit', 'b c'], {
    encoding: 'utf8',
  });
  assert.equal(stdout, `node ${process.versions.node} exit b c\n`);
  assert.equal(status, 7);
});

test('launcher: a signal that comes twice at once is passed on once', async () => {
  const child = spawn(process.execPath, [launcher, echo, 'wait'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    if (line !== 'waiting') return;
    child.kill('SIGINT');
    setTimeout(() => child.kill('SIGINT'), 20);
  });
  assert.deepEqual(await once(child, 'exit'), [1, null]);
});

test('launcher: ends by the signal that ended the program', async () => {
  const child = spawn(process.execPath, [launcher, echo, 'wait'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => line === 'waiting' && child.kill('SIGTERM'));
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGTERM']);
});

for (const kind of ['skip', 'todo']) {
  test(`test runner: a test marked ${kind} fails the run`, () => {
    const { status, stdout } = runTests([unchecked], { UNCHECKED: kind });
    assert.match(stdout, /FAILED, because it was skipped or is to do: promised/);
    assert.match(stdout, /tests 2\n/);
    assert.equal(status, 1);
  });
}

test('test runner: succeeds, and ends with a summary that counts the tests', () => {
  const { status, stdout } = runTests([unchecked], { UNCHECKED: 'plan-less' });
  assert.match(
    stdout,
    /tests 2\n.*suites 0\n.*pass 2\n.*fail 0\n.*cancelled 0\n.*skipped 0\n.*todo 0\n.*duration_ms [\d.]+\n*$/,
  );
  assert.equal(status, 0);
});

test('test runner: unit tests first, unknown folders last', () => {
  const files = [
    'test/zoo/a.test.ts',
    'test/fault/a.test.ts',
    'test/unit/x/b.test.ts',
    'test/unit/a.test.ts',
  ];
  assert.deepEqual(inOrder(files), [
    'test/unit/a.test.ts',
    'test/unit/x/b.test.ts',
    'test/fault/a.test.ts',
    'test/zoo/a.test.ts',
  ]);
});
