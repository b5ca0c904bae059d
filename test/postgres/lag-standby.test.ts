import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadConfig } from '../../src/config/load.ts';
import { DatabaseClock } from '../../src/observe/lag.ts';
import { createLogger } from '../../src/observe/log.ts';
import { createMetrics } from '../../src/observe/metrics.ts';
import { Monitor } from '../../src/observe/monitor.ts';
import { Observer } from '../../src/observe/observer.ts';
import { CaptureScene } from '../support/capture.ts';
import { quantile } from '../support/statistics.ts';
import { until } from '../support/until.ts';

/** What a relay shows that stands by: it knows what the database tells, and nothing else. */
class StandbyMonitor {
  readonly monitor: Monitor;
  private readonly over = new AbortController();
  private readonly ended: Promise<void>;

  constructor(env: Readonly<Record<string, string>>) {
    const log = createLogger({
      level: 'error',
      format: 'json',
      now: () => Date.now(),
      write: () => undefined,
    });
    const observer = new Observer({
      log,
      metrics: createMetrics({ version: 'test' }),
      clock: new DatabaseClock(),
    });
    this.monitor = new Monitor(loadConfig({ ...env }), observer, () => ({
      oldestUnsettledCommitMs: undefined,
      inFlightEvents: 0,
      inFlightBytes: 0,
      streamGoneMs: 0,
      leading: false,
    }));
    this.ended = this.monitor.run(this.over.signal);
  }

  async pending(events: number): Promise<void> {
    await until(() => this.monitor.pendingEvents === events, {
      what: `${events} pending events to be shown`,
    });
  }

  async stop(): Promise<void> {
    this.over.abort();
    await this.ended;
  }
}

describe('P9 the lag on a standby', () => {
  let scene: CaptureScene;
  let standby: StandbyMonitor | undefined;

  beforeEach(async () => {
    scene = await CaptureScene.open();
  });

  afterEach(async () => {
    await standby?.stop();
    await scene.close();
  });

  for (const cleanup of ['delete', 'mark', 'none']) {
    test(`CLEANUP=${cleanup}: what waits grows older, what is delivered does not count`, async () => {
      const env = { CLEANUP: cleanup };
      await scene.insert(3);
      standby = new StandbyMonitor({ ...scene.env, ...env });
      await standby.pending(3);
      const leader = await scene.streaming(undefined, env);
      await standby.pending(0);
      assert.equal(standby.monitor.lagSeconds(), 0);
      await scene.insert(2, 4);
      await until(() => leader.publisher.received.length === 5, { what: 'the stream to bring them' });
      await standby.pending(0);
      await leader.stop();
      await scene.insert(4, 6);
      await standby.pending(4);
      await until(() => (standby?.monitor.lagSeconds() ?? 0) > 1.5, { what: 'the lag to grow' });
      assert.ok(standby.monitor.lagSeconds() < 30);
    });
  }

  test('a steady flow without delay shows none, on the leader neither', async () => {
    const leader = await scene.streaming();
    const here = (standby = new StandbyMonitor(scene.env));
    await standby.pending(0);
    const seen = { leader: [] as number[], standby: [] as number[] };
    const endMs = performance.now() + 4_000;
    const flow = async (): Promise<void> => {
      for (let n = 1; performance.now() < endMs; n++) await scene.insert(1, n);
    };
    const look = async (): Promise<void> => {
      while (performance.now() < endMs) {
        seen.leader.push(leader.relay.lagSeconds);
        seen.standby.push(here.monitor.lagSeconds());
        await sleep(20);
      }
    };
    await Promise.all([flow(), look()]);
    // A look that finds a row on its way must not count it until the next one: that would be half a second on average.
    for (const lags of Object.values(seen)) assert.ok(quantile(lags, 0.8) < 0.2, `${quantile(lags, 0.8)} s`);
  });
});
