import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { listenForWakeUps } from '../../src/pipeline/capture/polling/wake-up.ts';
import { CaptureScene } from '../support/capture.ts';
import { terminated } from '../support/modes.ts';
import { TablePoller } from '../support/table-poller.ts';
import { until } from '../support/until.ts';

const CHANNEL = 'written';
/** What the README offers. */
const TRIGGER = `
  create function outbox_notify() returns trigger language plpgsql as $$ begin notify ${CHANNEL}; return null; end $$;
  create trigger outbox_notify after insert on outbox for each statement execute function outbox_notify()`;
const LISTENER = `from pg_stat_activity where datname = current_database() and query = 'listen "${CHANNEL}"'`;

const WAKES = 20;
/** An idle poll looks every 0.2 s: so many looks would take four seconds. */
const WOKEN_WITHIN_MS = 2_000;

async function withScene(run: (scene: CaptureScene) => Promise<void>): Promise<void> {
  const scene = await CaptureScene.open({ env: { SOURCE: 'polling', NOTIFY_CHANNEL: CHANNEL } });
  try {
    await run(scene);
  } finally {
    await scene.close();
  }
}

async function untilListening(scene: CaptureScene): Promise<void> {
  const listening = async (): Promise<boolean> => (await scene.value(`select count(*) ${LISTENER}`)) === '1';
  await until(listening, { what: 'a listener', timeoutMs: 20_000 });
}

describe('NOTIFY_CHANNEL', () => {
  test('a commit with the trigger wakes the listener, also after its connection was lost', async () => {
    await withScene(async (scene) => {
      await scene.sql(TRIGGER);
      const over = new AbortController();
      let woken = 0;
      const wake = (): void => void woken++;
      const options = {
        config: scene.config,
        channel: CHANNEL,
        wake,
        onUseless: () => assert.fail('useful'),
      };
      const listening = listenForWakeUps(options, over.signal);
      try {
        for (let round = 0; round < 2; round++) {
          await untilListening(scene);
          await until(() => woken > 0, { what: 'a look at what was written before' });
          woken = 0;
          await scene.insert(1);
          await until(() => woken > 0, { what: 'a notification' });
          await scene.sql(`select pg_terminate_backend(pid) ${LISTENER}`);
          woken = 0;
        }
      } finally {
        over.abort();
        await listening;
      }
    });
  });

  test('an idle poll that is woken looks at once, and a flood of notifications is one look', async () => {
    await withScene(async (scene) => {
      const poller = new TablePoller(scene.config, scene.client);
      await poller.wait(() => poller.looks.length > 8, 'an idle poll');
      const beganMs = performance.now();
      for (let i = 0; i < WAKES; i++) {
        const before = poller.looks.length;
        for (let n = 0; n < 100; n++) poller.wake();
        await poller.wait(() => poller.looks.length > before, 'a look');
      }
      const tookMs = performance.now() - beganMs;
      const made = poller.looks.length;
      await poller.stop();
      assert.ok(tookMs < WOKEN_WITHIN_MS, `${tookMs} ms`);
      assert.ok(made < 5 * WAKES, `${made} looks`);
    });
  });

  test('P1 the relay listens while it polls, and delivers without the listener', async () => {
    await withScene(async (scene) => {
      const relay = scene.relayProcess();
      try {
        await relay.waitForLine(/mode: polling/);
        await untilListening(scene);
        await scene.sql(`select pg_terminate_backend(pid) ${LISTENER}`);
        await scene.insert(3);
        await scene.untilEmpty();
        await terminated(relay);
      } finally {
        await relay.destroy();
      }
    });
  });
});
