import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import { CaptureScene } from '../support/capture.ts';
import { until } from '../support/until.ts';

/** The catalog does not know of it: the slot is valid, and each attempt to read it ends in the same way. */
describe('the log that a slot needs is removed by hand', () => {
  let server: PostgresServer;
  let scene: CaptureScene;

  before(async () => void (server = await startPostgres()));

  after(async () => await server.remove());

  beforeEach(async () => void (scene = await CaptureScene.open({ serverUrl: server.url })));

  afterEach(async () => await scene.close());

  async function removeLog(): Promise<void> {
    const segment = await scene.value(
      'select pg_walfile_name(restart_lsn) from pg_replication_slots where slot_name = $1',
      [scene.config.slotName],
    );
    await scene.sql('select pg_switch_wal()');
    rmSync(join(server.dataDir, 'pg_wal', segment ?? ''));
  }

  test('P1 P5 the slot is given up, a new one made, and the table has every event', async () => {
    const first = await scene.streaming();
    await scene.insert(2);
    await scene.untilEmpty();
    await first.stop();
    await scene.insert(2, 3);
    await removeLog();
    const next = scene.relay(first.publisher);
    await next.logged(/slot-unreadable/);
    // Before the error comes the server says that it streams.
    const { length } = next.logLines;
    await next.logged(/mode: streaming/, undefined, length);
    await scene.insert(1, 5);
    await scene.untilEmpty();
    assert.deepEqual(
      next.publisher.payloads,
      [1, 2, 3, 4, 5].map((n) => `{"n": ${n}}`),
    );
  });

  test('P1 where rows are deleted at once, a person is asked, and no slot made in silence', async () => {
    const env = { DELETED_AT_ONCE: 'yes' };
    const first = await scene.streaming(undefined, env);
    await first.stop();
    const kept = await scene.slot();
    await removeLog();
    const halted = scene.relay(first.publisher, env);
    await halted.logged(
      /halted: this needs a person.*between [\dA-F/]+ and [\dA-F/]+ may be lost.*possible-loss/,
    );
    assert.equal((await scene.slot())?.confirmedLsn, kept?.confirmedLsn);
    await halted.stop();
    // What the line says to do.
    await scene.sql(`update outbox_relay_progress set handover = 'polling' where slot_name = $1`, [
      scene.config.slotName,
    ]);
    const next = await scene.streaming(first.publisher, env);
    await scene.sql(
      `begin; select outbox_emit('order', 'k', 'Placed', '{"n": 1}'); delete from outbox; commit`,
    );
    await until(() => next.publisher.received.length === 1, { what: 'the event' });
  });
});
