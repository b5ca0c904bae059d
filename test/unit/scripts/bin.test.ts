import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const BIN = fileURLToPath(new URL('../../../bin/outbox-relay.mjs', import.meta.url));
/** What Node.js 20 lacks. */
const OLD = ['--import', 'data:text/javascript,delete Promise.withResolvers; delete JSON.rawJSON'];

const folder = mkdtempSync(join(tmpdir(), 'bin-test-'));
after(() => rmSync(folder, { recursive: true }));

/** An installation: the real bin, everything else says what it is and its arguments. */
function installation(name: string, files: readonly string[]): string {
  const root = join(folder, name);
  const echo = `console.log(import.meta.url.slice(-12), ...process.argv.slice(2).map((a) => a.slice(-12)));`;
  for (const part of ['bin', 'dist', 'scripts']) mkdirSync(join(root, part), { recursive: true });
  writeFileSync(join(root, 'package.json'), '{"type": "module"}');
  for (const file of files) writeFileSync(join(root, file), echo);
  copyFileSync(BIN, join(root, 'bin/outbox-relay.mjs'));
  return join(root, 'bin/outbox-relay.mjs');
}

function run(bin: string, nodeArguments: readonly string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...nodeArguments, bin, 'migrate'], {
    encoding: 'utf8',
  });
  return { status, output: stdout + stderr };
}

const LAUNCHER = 'scripts/with-dependencies.mjs';

test('bin: the built program runs in this process when Node is new enough', () => {
  const bin = installation('new', ['dist/main.js', LAUNCHER]);
  assert.deepEqual(run(bin, []), { status: 0, output: 'dist/main.js migrate\n' });
});

test("bin: an old Node hands the built program to the project's own", () => {
  const bin = installation('old', ['dist/main.js', LAUNCHER]);
  assert.deepEqual(run(bin, OLD), { status: 0, output: 'ndencies.mjs dist/main.js migrate\n' });
});

test('bin: without a build the sources are run', () => {
  const bin = installation('sources', [LAUNCHER]);
  assert.deepEqual(run(bin, []), {
    status: 0,
    output: `ndencies.mjs ${'/src/main.ts'.slice(-12)} migrate\n`,
  });
});

test('bin: an old Node and no other is told what is needed', () => {
  const { status, output } = run(installation('alone', ['dist/main.js']), OLD);
  assert.equal(status, 1);
  assert.match(output, /^outbox-relay needs Node\.js 22 or newer .*; this is v\d+/);
});
