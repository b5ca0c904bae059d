import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { CaptureScene } from '../support/capture.ts';
import { until } from '../support/until.ts';

describe('CLEANUP is changed', () => {
  let scene: CaptureScene | undefined;

  afterEach(async () => await scene?.close());

  /** Two events were delivered, and stay in the table. */
  async function delivered(cleanup: 'mark' | 'none'): Promise<CaptureScene> {
    scene = await CaptureScene.open({ env: { CLEANUP: cleanup } });
    const { config } = scene;
    const relay = await scene.streaming();
    await scene.insert(2);
    await until(() => relay.numbers.length === 2, { what: 'two events' });
    const noted =
      cleanup === 'mark'
        ? 'select count(*) = 2 from outbox where delivered_at is not null'
        : `select bool_or(pg_visible_in_snapshot(o.xid, p.horizon::pg_snapshot) and o.seq = p.settled_seq)
             from outbox o, outbox_relay_progress p where p.slot_name = '${config.slotName}'`;
    const here = scene;
    await until(async () => (await here.value(noted)) === 't', {
      what: 'them to be noted',
      timeoutMs: 40_000,
    });
    await relay.stop();
    return scene;
  }

  for (const [before, now] of [
    ['mark', 'delete'],
    ['none', 'delete'],
    ['none', 'mark'],
  ] as const)
    test(
      `P4 from ${before} to ${now}: what was delivered is not sent again, and the way is told`,
      { timeout: 90_000 },
      async () => {
        const here = await delivered(before);
        const refused = here.relayProcess({ env: { CLEANUP: now } });
        assert.equal((await refused.exit).code, 78, refused.output);
        assert.match(refused.output, /cleanup-changed/);
        const [, remedy = ''] =
          /is delivered: (.*?;(?: update .*?;)?)/.exec(refused.stderr.at(-1) ?? '') ?? [];
        await here.client.query(remedy.replaceAll('\\"', '"'));
        const relay = here.relay(undefined, { CLEANUP: now });
        await here.insert(1, 3);
        const open =
          now === 'mark'
            ? 'select count(*) from outbox where delivered_at is null'
            : 'select count(*) from outbox';
        await until(async () => (await here.value(open)) === '0', {
          what: 'nothing to be left',
          timeoutMs: 40_000,
        });
        assert.deepEqual(relay.numbers, [3]);
      },
    );

  test(
    'P1 another outbox with the SLOT_NAME of one that had none: nobody is told to delete its rows',
    { timeout: 60_000 },
    async () => {
      const here = await delivered('none');
      await here.sql('create table outbox2 (like outbox including all)');
      await here.sql(`insert into outbox2 select * from outbox`);
      const refused = here.relayProcess({ env: { OUTBOX_TABLE: 'outbox2', CLEANUP: 'delete' } });
      assert.equal((await refused.exit).code, 78, refused.output);
      assert.match(refused.output, /slot-of-other-table/);
      assert.doesNotMatch(refused.output, /delete from/);
    },
  );

  test('P4 marked since: what none had settled is not asked about again', { timeout: 60_000 }, async () => {
    const here = await delivered('none');
    await here.sql('update outbox set delivered_at = now()');
    await here.streaming(undefined, { CLEANUP: 'mark' });
  });

  test('P4 from delete to mark, and the same as before: nothing is asked', { timeout: 60_000 }, async () => {
    scene = await CaptureScene.open();
    await scene.handOver();
    await scene.insert(2);
    const relay = await scene.streaming(undefined, { CLEANUP: 'mark' });
    await until(() => relay.numbers.length === 2, { what: 'two events' });
    await relay.stop();
    await scene.streaming(undefined, { CLEANUP: 'mark' });
  });
});
