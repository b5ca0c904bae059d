import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Scene } from '../support/crash-run.ts';
import { withClient } from '../support/database.ts';
import { assertDelivered } from '../support/judge.ts';
import { modeChanges, slotsOf, streamedTimes, terminated } from '../support/modes.ts';
import { Proxy } from '../support/proxy.ts';
import { rabbitmqService } from '../support/services.ts';
import { until } from '../support/until.ts';

const LIMIT_BYTES = 20 * 1024 * 1024;

/** Changes in another table, which the slot keeps as long as the outbox's position stands still. */
async function writeLog(databaseUrl: string): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    await client.query(
      `create table noise as select repeat(md5(n::text), 30) as text from generate_series(1, 60000) n`,
    );
  });
}

test('P5 P6 the broker is away and the slot keeps too much of the log: it is given up, and nothing is lost', async () => {
  const { url } = await rabbitmqService();
  const proxy = await Proxy.start(url);
  const scene = await Scene.open('rabbitmq', { brokerAddress: proxy.url(url), shop: { rate: 200 } });
  const relay = scene.startRelay({
    env: { WAL_RETENTION_LIMIT_BYTES: String(LIMIT_BYTES), RABBITMQ_CONFIRM_TIMEOUT_MS: '12000' },
  });
  try {
    await streamedTimes(relay, 1);
    scene.shop.start();
    await until(async () => (await scene.target.count()) > 100, { what: 'events to flow' });
    proxy.blackHole();
    await writeLog(scene.database.url);
    await until(async () => (await slotsOf(scene.database.url)).length === 0, {
      what: 'the slot to be given up, before the answers of the broker are overdue',
      timeoutMs: 8_000,
    });
    await relay.waitForLine(/mode: polling.*(?:slot-missing|wal-limit)/, 30_000);
    proxy.heal();
    await streamedTimes(relay, 2);
    await scene.shop.stop();
    await scene.drained();
    await terminated(relay);
    // Sends that were cut off are sent again; a switch adds none of its own.
    assertDelivered(await scene.verdict(), { maxDuplicates: 1_000 });
    assert.ok(modeChanges(relay).length >= 3);
  } finally {
    proxy.heal();
    await relay.destroy();
    await scene.close();
    await proxy.close();
  }
});
