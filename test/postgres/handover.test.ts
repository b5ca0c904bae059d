import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import type { FaultPoint } from '../../src/lifecycle/fault-point.ts';
import { CaptureScene, printed, type RunningRelay } from '../support/capture.ts';
import { assertDelivered, judge } from '../support/judge.ts';
import type { RelayProcess } from '../support/relay-process.ts';
import { Shop } from '../support/shop.ts';
import { until } from '../support/until.ts';

type Kill = `${FaultPoint}:kill:${number}`;

const KILLS: Readonly<Record<'streaming' | 'auto', readonly Kill[]>> = {
  streaming: [
    'after-slot-create:kill:1',
    'after-snapshot-import:kill:1',
    'after-handover-row:kill:1',
    'during-table-pass:kill:2',
    'after-handover-complete:kill:1',
  ],
  // Polled first: hardly anything is left for the pass over the table.
  auto: [
    'during-poll:kill:2',
    'after-slot-create:kill:1',
    'after-snapshot-import:kill:1',
    'after-handover-row:kill:1',
    'after-handover-complete:kill:1',
  ],
};

describe('first start with rows in the table', () => {
  let scene: CaptureScene | undefined;
  let shop: Shop | undefined;
  let relay: RunningRelay | undefined;
  const processes: RelayProcess[] = [];

  afterEach(async () => {
    await shop?.stop();
    await relay?.stop();
    for (const process of processes.splice(0)) await process.destroy();
    await scene?.close();
    scene = shop = relay = undefined;
  });

  /** Rows with their journal, written before any slot exists. */
  async function backlog(rows: number, cleanup: string): Promise<{ scene: CaptureScene; shop: Shop }> {
    scene = await CaptureScene.open({ env: { CLEANUP: cleanup } });
    shop = await Shop.open({ url: scene.database.url, rate: 400 });
    await scene.sql(
      `with e as (insert into outbox (aggregatetype, aggregateid, type, payload)
         select 'order', 'key-' || n % 100, 'Placed', jsonb_build_object('n', n) from generate_series(1, $1::int) n
         returning seq, id, aggregateid, payload)
       insert into journal (id, key, payload) select id, aggregateid, payload::text from e order by seq`,
      [rows],
    );
    return { scene, shop };
  }

  test('P5 20,000 waiting rows while writers go on: each once, in order of its key', async () => {
    const here = await backlog(20_000, 'delete');
    here.shop.start();
    relay = here.scene.relay();
    await relay.logged(/mode: streaming/, 60_000);
    await here.shop.stop();
    await here.scene.untilEmpty(60_000);
    const committed = await here.shop.committed();
    assert.ok(committed.length > 20_000, 'the writers wrote meanwhile');
    assertDelivered(judge(committed, relay.publisher.received), { maxDuplicates: 0 });
  });

  for (const [source, cleanup] of [
    ['auto', 'delete'],
    ['auto', 'mark'],
    ['streaming', 'delete'],
    ['streaming', 'none'],
  ] as const) {
    test(`P1 P3 SOURCE=${source} CLEANUP=${cleanup}: SIGKILL at every step of the hand-over loses nothing and keeps the order`, async () => {
      const here = await backlog(3_000, cleanup);
      here.shop.start();
      for (const fault of KILLS[source]) {
        const killed = here.scene.relayProcess({ fault, env: { SOURCE: source } });
        processes.push(killed);
        assert.deepEqual(await killed.exit, { code: null, signal: 'SIGKILL' }, fault);
      }
      const last = here.scene.relayProcess({ env: { SOURCE: source } });
      processes.push(last);
      await last.waitForLine(/mode: streaming/);
      await here.shop.stop();
      const committed = await here.shop.committed();
      await until(() => judge(committed, printed(processes)).lost.length === 0, {
        timeoutMs: 30_000,
        what: 'every committed event',
      });
      last.kill('SIGTERM');
      assert.deepEqual(await last.exit, { code: 0, signal: null });
      // Only the kill in the middle of the pass can have cut answers off: at most one page of it.
      assertDelivered(judge(committed, printed(processes)), { maxDuplicates: 2_000 });
      await checkTable(here.scene, cleanup);
    });
  }
});

async function checkTable(scene: CaptureScene, cleanup: string): Promise<void> {
  if (cleanup === 'delete') assert.equal(await scene.count('outbox'), 0);
  if (cleanup === 'mark') assert.equal(await scene.count('outbox where delivered_at is null'), 0);
  if (cleanup === 'none') assert.equal(await scene.count('outbox'), await scene.count('journal'));
}
