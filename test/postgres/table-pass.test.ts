import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { TablePass } from '../../src/pipeline/capture/polling/table-pass.ts';
import { loadConfig } from '../../src/config/load.ts';
import { CaptureScene } from '../support/capture.ts';
import { withClient } from '../support/database.ts';
import {
  afterEachQuery,
  recording,
  PLAN_SETTINGS,
  TablePoller,
  type Statement,
} from '../support/table-poller.ts';

/** More than is looked through in one statement, several times. */
const HISTORY = 180_000;
const FRESH = 7;

const sizesOf = (statements: readonly Statement[]): Statement[] =>
  statements.filter(({ text }) => text.includes('relay_before'));

describe('the pass over the table', () => {
  let scene: CaptureScene;

  beforeEach(async () => {
    scene = await CaptureScene.open();
    await scene.sql(PLAN_SETTINGS);
  });

  afterEach(async () => await scene.close());

  const fill = async (rows: number, payload: string): Promise<void> =>
    void (await scene.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload)
       select 'order', 'key-' || n % 10, 'Placed', ${payload} from generate_series(1, $1::int) n`,
      [rows],
    ));

  const snapshot = async (): Promise<string> =>
    (await scene.value('select pg_current_snapshot()::text')) ?? '';

  test(
    'P1 with CLEANUP=none a long history before what is new is passed in statements of bounded length',
    { timeout: 120_000 },
    async () => {
      await fill(HISTORY, `'{}'`);
      const horizon = await snapshot();
      await fill(FRESH, `'{"fresh": true}'`);
      const { client, statements } = recording(scene.client);
      const pass = new TablePass({
        config: loadConfig({ ...scene.env, CLEANUP: 'none' }),
        client,
        rows: { snapshot: await snapshot(), horizon },
        afterSeq: -1,
      });
      const seqs: number[] = [];
      for await (const { events } of pass.batches(new AbortController().signal))
        seqs.push(...events.map(({ seq }) => seq));
      assert.deepEqual(
        seqs,
        Array.from({ length: FRESH }, (_, i) => HISTORY + i + 1),
      );
      const pages = sizesOf(statements);
      assert.ok(pages.length >= 4, `${pages.length} statements`);
      for (const { text, values } of pages) {
        const plan = await scene.sql(`explain (analyze, costs off, timing off, summary off) ${text}`, [
          ...values,
        ]);
        const lines = plan.map((line) => Object.values(line)[0] ?? '');
        const filtered = lines.map((line) => /Rows Removed by Filter: (\d+)/.exec(line)?.[1] ?? '0');
        assert.ok(
          filtered.every((rows) => Number(rows) <= 50_000) && lines.join().includes('Index'),
          lines.join('\n'),
        );
      }
    },
  );

  test(
    'P1 what is removed while the pass goes over it does not make it pass over rows',
    { timeout: 120_000 },
    async () => {
      await fill(60_000, `'{}'`);
      const horizon = await snapshot();
      await fill(60_000, `'{"fresh": true}'`);
      const pages: string[] = [];
      const pass = new TablePass({
        config: loadConfig({ ...scene.env, CLEANUP: 'none' }),
        client: afterEachQuery(scene.client, async (text) => {
          // As a retention job does, or the drop of a partition, between any two statements of the pass.
          if (text.includes('relay_before') && pages.push(text) === 1)
            await scene.sql('delete from outbox where seq <= 60000');
        }),
        rows: { snapshot: await snapshot(), horizon },
        afterSeq: -1,
      });
      let delivered = 0;
      for await (const { events } of pass.batches(new AbortController().signal)) delivered += events.length;
      assert.equal(delivered, 60_000);
      assert.ok(pages.length > 1);
    },
  );

  test('P7 rows whose texts would take long to measure together are measured in portions', async () => {
    await scene.sql(
      'alter table outbox alter column payload type text, alter column payload set storage external',
    );
    const megabytes = 12;
    await fill(6, `repeat('x', ${megabytes} * 1048576)`);
    const { client, statements } = recording(scene.client);
    const pass = await scene.tablePass({ client });
    const seqs: number[] = [];
    for await (const { events } of pass.batches(new AbortController().signal))
      seqs.push(...events.map(({ seq }) => seq));
    assert.deepEqual(seqs, [1, 2, 3, 4, 5, 6]);
    assert.ok(sizesOf(statements).length >= 3, 'three of them are more than 32 MiB');
  });

  test('P9 P10 a time that is none is taken for now: no broker could carry it, and the lag would never end', async () => {
    await scene.sql('alter table outbox alter column created_at drop not null');
    await fill(4, `'{}'`);
    await scene.sql(`update outbox set created_at = case seq when 2 then 'infinity'::timestamptz
      when 3 then '-infinity' when 4 then null else created_at end`);
    const pass = await scene.tablePass();
    const times: number[] = [];
    for await (const { events } of pass.batches(new AbortController().signal))
      times.push(...events.map(({ transaction }) => transaction.committedAtMs));
    assert.equal(times.length, 4);
    for (const time of times) assert.ok(Math.abs(time - Date.now()) < 60_000, String(time));
  });

  test('P9 a time without a zone is that of whoever wrote it: no age is told from it', async () => {
    await scene.sql('alter table outbox alter column created_at type timestamp');
    await fill(2, `'{}'`);
    await scene.sql(`update outbox set created_at = created_at + (seq * 2 - 3) * interval '5 hours'`);
    const pass = await scene.tablePass();
    for await (const { events } of pass.batches(new AbortController().signal))
      for (const { transaction } of events)
        assert.ok(Math.abs(transaction.committedAtMs - Date.now()) < 60_000);
  });

  test('P9 polled, a transaction that was open for long counts from its commit, not from the time that it wrote', async () => {
    const poller = new TablePoller(scene.config, scene.client);
    await withClient(scene.database.url, async (writer) => {
      const emit = `select outbox_emit('order', 'k', 'Placed', '{}')`;
      await writer.query(`begin`);
      await writer.query(`${emit}, pg_sleep(2)`);
      const before = poller.looks.length;
      await poller.wait(() => poller.looks.length > before + 1, 'a look that does not see it');
      const committingMs = Date.now();
      await writer.query('commit');
      await poller.wait(() => poller.delivered.length === 1, 'it to be polled');
      const [committedMs = 0] = poller.committedAtMs;
      assert.ok(committedMs > committingMs - 1_000, `${committingMs - committedMs} ms before its commit`);
      assert.ok(committedMs <= Date.now());
    });
    await poller.stop();
  });
});
