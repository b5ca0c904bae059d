import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Scene } from '../support/crash-run.ts';
import { assertDelivered } from '../support/judge.ts';
import type { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

test(
  'P8 stopped between the look at its lease and the send to Kafka: what it sends when it wakes up is refused',
  { timeout: 120_000 },
  async () => {
    const scene = await Scene.open('kafka', { shop: { rate: 300, keys: 10 } });
    const relays: RelayProcess[] = [];
    try {
      const stopped = scene.startRelay({ fault: 'after-lease-check:stop:60' });
      relays.push(stopped);
      scene.shop.start();
      await stopped.waitForLine(/fault-point after-lease-check/, 30_000);
      const before = await scene.target.count();
      relays.push(scene.startRelay());
      const delivers = async (): Promise<boolean> => (await scene.target.count()) > before + 300;
      await until(delivers, { timeoutMs: 40_000, what: 'the successor to deliver' });
      await scene.shop.stop();
      await scene.drained();
      const delivered = await scene.target.count();
      stopped.kill('SIGCONT');
      await stopped.waitForLine(/\(Kafka error 47\)/);
      // By the lease, or by the session that ends first: which one is chance.
      await stopped.waitForLine(/another relay leads now|mode: standby/);
      assert.equal(
        await scene.target.count(),
        delivered,
        'nothing came from the relay that had been stopped',
      );
      assertDelivered(await scene.verdict(), { maxDuplicates: 100 });
    } finally {
      for (const relay of relays) await relay.destroy();
      await scene.close();
    }
  },
);
