import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { RelayProcess } from '../../support/relay-process.ts';

const script = fileURLToPath(new URL('fixtures/faulty.ts', import.meta.url));

test('relay process: collects lines, passes signals, tells the exit', async () => {
  const relay = RelayProcess.start({ script, args: [] });
  await relay.waitForLine(/^waiting$/);
  assert.deepEqual(relay.stdout, ['before 1', 'after 1', 'before 2', 'after 2', 'before 3', 'after 3']);
  relay.kill('SIGTERM');
  assert.deepEqual(await relay.exit, { code: 3, signal: null });
  assert.equal(relay.stdout.at(-1), 'drained');
  await assert.rejects(relay.waitForLine(/never/), /the relay ended with .*no line matched/s);
});

test('relay process: a fault kills exactly at the point, at the hit asked for', async () => {
  const relay = RelayProcess.start({ script, args: [], fault: 'after-acknowledge:kill:2' });
  assert.deepEqual(await relay.exit, { code: null, signal: 'SIGKILL' });
  assert.deepEqual(relay.stdout, ['before 1', 'after 1', 'before 2']);
  assert.deepEqual(relay.stderr, ['fault-point after-acknowledge']);
});

test('relay process: a fault stops the process until it is continued', async () => {
  const relay = RelayProcess.start({ script, args: [], fault: 'after-acknowledge:stop:2' });
  try {
    await relay.waitForLine(/^fault-point/);
    await relay.untilStopped();
    assert.deepEqual(relay.stdout, ['before 1', 'after 1', 'before 2']);
    relay.kill('SIGCONT');
    await relay.waitForLine(/^after 3$/);
  } finally {
    await relay.destroy();
  }
});

test('relay process: a fault delays', async () => {
  const started = performance.now();
  const relay = RelayProcess.start({ script, args: [], fault: 'after-acknowledge:delay-100' });
  try {
    await relay.waitForLine(/^after 3$/);
    assert.ok(performance.now() - started >= 300);
  } finally {
    await relay.destroy();
  }
});
