import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CaptureScene, type RunningRelay } from '../support/capture.ts';
import { until } from '../support/until.ts';

/** Debezium's habit: the row is in the log, and never in the table. */
describe('an application that deletes its rows at once', () => {
  let scene: CaptureScene;
  let written = 0;

  beforeEach(async () => {
    written = 0;
    scene = await CaptureScene.open();
  });

  afterEach(async () => await scene.close());

  async function emit(): Promise<void> {
    written++;
    await scene.client.query(
      `begin; select outbox_emit('order', 'k', 'Placed', '{"n": ${written}}'); delete from outbox; commit`,
    );
  }

  async function arrived(relay: RunningRelay): Promise<void> {
    await until(() => relay.publisher.received.length === written, { what: `event ${written}` });
  }

  test(
    'P1 P5 it is noticed and recorded; each event is delivered once all the same',
    { timeout: 90_000 },
    async () => {
      const relay = await scene.streaming();
      await until(
        async () => {
          await emit();
          return (await scene.progress('deleted_at_once')) === 'true';
        },
        { what: 'it to be noticed', timeoutMs: 40_000, intervalMs: 400 },
      );
      await relay.logged(/deleted-at-once/);
      await emit();
      await arrived(relay);
      assert.deepEqual(
        relay.publisher.payloads,
        Array.from({ length: written }, (_, i) => `{"n": ${i + 1}}`),
      );
    },
  );

  test(
    'P1 a lost slot is told as possible loss with its range, never polled over, until somebody acknowledges it',
    { timeout: 90_000 },
    async () => {
      const relay = await scene.streaming(undefined, { DELETED_AT_ONCE: 'yes' });
      await emit();
      await arrived(relay);
      const durable = await scene.progress('durable_lsn');
      const from = relay.logLines.length;
      // Nobody has asked for the lag so far: it must not be counted from the start of the process.
      await sleep(4_000);
      const droppedMs = performance.now();
      await scene.dropSlot();
      const line = await relay.logged(/halted: this needs a person/);
      assert.ok(relay.relay.lagSeconds < (performance.now() - droppedMs) / 1_000 + 2);
      assert.match(line, /possible-loss/);
      const [, low, high] = /between ([\dA-F/]+) and ([\dA-F/]+) may be lost/.exec(line) ?? [];
      assert.equal(
        await scene.value(`select $1::pg_lsn >= $2::pg_lsn and $3::pg_lsn > $1::pg_lsn`, [
          low,
          durable,
          high,
        ]),
        't',
      );
      assert.ok(!relay.logLines.slice(from).some((text) => /"mode: polling"/.test(text)), 'never polled');
      assert.equal(await scene.slot(), undefined, 'no new slot');
      await relay.stop();
      // Not the settings are wrong: a process that ended would only be started again.
      const restarted = scene.relay(relay.publisher, { DELETED_AT_ONCE: 'yes' });
      await restarted.logged(/halted: this needs a person.*possible-loss/);
      // P9: no row tells of what waits.
      await until(() => restarted.relay.lagSeconds > 2, { what: 'the lag to grow while nothing streams' });
      await restarted.stop();
      // What the line says to do.
      await scene.sql(`update outbox_relay_progress set handover = 'polling' where slot_name = $1`, [
        scene.config.slotName,
      ]);
      const next = await scene.streaming(relay.publisher, { DELETED_AT_ONCE: 'yes' });
      await emit();
      await arrived(next);
    },
  );

  test('P1 the guard only warns, and the slot stays', { timeout: 60_000 }, async () => {
    const relay = await scene.streaming(undefined, {
      DELETED_AT_ONCE: 'yes',
      WAL_RETENTION_LIMIT_BYTES: '1048576',
    });
    relay.publisher.hold();
    await emit();
    await scene.sql('create table noise (x text)');
    await scene.sql(`insert into noise select repeat('x', 1000) from generate_series(1, 3000)`);
    await relay.logged(/wal-limit|WAL_RETENTION_LIMIT_BYTES is/);
    assert.ok(await scene.slot(), 'it stays');
    relay.publisher.release();
    await arrived(relay);
    assert.equal(relay.logLines.filter((text) => /"mode: streaming"/.test(text)).length, 1);
  });
});
