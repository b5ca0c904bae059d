import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CaptureScene } from '../support/capture.ts';
import type { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

const COUNTING = fileURLToPath(new URL('../support/counting-relay.ts', import.meta.url));
const EVENTS = 1_000_000;
/** A million events held would be a gigabyte. What is alive is some 20 MB; the rest is garbage that V8 has time to collect. */
const MAX_RSS_MB = 400;

describe('one transaction of a million events', () => {
  let scene: CaptureScene | undefined;
  let relay: RelayProcess | undefined;

  afterEach(async () => {
    await relay?.destroy();
    await scene?.close();
    scene = relay = undefined;
  });

  for (const source of ['the stream', 'the table'] as const) {
    test(`P7 from ${source}: bounded memory, each once, in order`, async (context) => {
      const here = (scene = await CaptureScene.open({
        env: { CLEANUP: source === 'the stream' ? 'delete' : 'none' },
      }));
      if (source === 'the stream') await here.handOver();
      const count = source === 'the stream' ? EVENTS : EVENTS / 5;
      await here.sql('set statement_timeout = 0');
      await here.client.query({
        text: `insert into outbox (aggregatetype, aggregateid, type, payload)
               select 'order', 'key-' || n % 100, 'Placed', jsonb_build_object('n', n) from generate_series(1, ${count}) n`,
        query_timeout: 120_000,
      } as { text: string });
      const startMs = performance.now();
      relay = here.relayProcess({ script: COUNTING });
      await relay.waitForLine(/mode: streaming/, 120_000);
      const left = source === 'the stream' ? 'select 1 from outbox limit 1' : 'select 1 where false';
      await until(async () => (await here.value(left)) === null, {
        timeoutMs: 120_000,
        intervalMs: 100,
        what: 'an empty outbox',
      });
      const seconds = (performance.now() - startMs) / 1000;
      relay.kill('SIGTERM');
      assert.deepEqual(await relay.exit, { code: 0, signal: null });
      const result = JSON.parse(relay.stdout.at(-1) ?? '') as Record<string, number>;
      context.diagnostic(`${count} events in ${seconds.toFixed(1)} s: ${JSON.stringify(result)}`);
      assert.equal(result['received'], count);
      assert.equal(result['outOfOrder'], 0);
      assert.ok((result['peakRssMb'] ?? Infinity) < MAX_RSS_MB, `${result['peakRssMb']} MB`);
    });
  }
});
