import assert from 'node:assert/strict';
import { test } from 'node:test';
import { idleOutbox } from '../fault/idle.ts';

const MIB = 1024 ** 2;
const SECONDS = 24;

test('P6 nothing happens in the outbox, much happens beside it and in another database: what the slot keeps does not grow', async (t) => {
  const { writtenBytes, retainedBytes, mostSeconds } = await idleOutbox({
    seconds: SECONDS,
    noise: 'both',
    intensity: 4,
    // By itself the server notes every 15 s from where on it needs the log; here the test would wait for that.
    checkpointEveryMs: 1_000,
  });
  const inMiB = (bytes: number): number => Math.round(bytes / MIB);
  t.diagnostic(`${inMiB(writtenBytes)} MiB written, kept each second: ${retainedBytes.map(inMiB).join(' ')}`);
  assert.ok(writtenBytes > 24 * MIB, `there was something to keep: ${writtenBytes} bytes`);
  assert.ok(mostSeconds < 0.75 * SECONDS, `what was written in ${mostSeconds} s was kept`);
});
