import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { MarkRetention } from '../../src/pipeline/settle/mark-retention.ts';
import { CaptureScene } from '../support/capture.ts';
import { until } from '../support/until.ts';

const HOUR_MS = 3_600_000;

/** What an EXPLAIN in JSON says about the pages that were read. */
interface Plan {
  readonly 'Node Type': string;
  readonly 'Shared Hit Blocks': number;
  readonly 'Shared Read Blocks': number;
  readonly Plans?: readonly Plan[];
}

describe('CLEANUP=mark with MARK_RETENTION', () => {
  let scene: CaptureScene;

  beforeEach(async () => {
    scene = await CaptureScene.open({ env: { CLEANUP: 'mark', MARK_RETENTION: '1h' } });
    await scene.sql('set enable_seqscan = off; set enable_bitmapscan = off');
  });
  afterEach(async () => await scene.close());

  /** Rows whose delivery was so many hours ago; `null`: not delivered. */
  async function rows(count: number, hoursAgo: number | null): Promise<void> {
    await scene.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload, delivered_at)
       select 'order', 'k', 'Placed', '1', now() - $2::float8 * interval '1 hour' from generate_series(1, $1::int)`,
      [count, hoursAgo],
    );
  }

  async function walk(retention: MarkRetention, nowMs = 0): Promise<number> {
    let steps = 1;
    while (await retention.step(scene.client, nowMs)) steps++;
    return steps;
  }

  test('P1 P6 deletes what was delivered long ago, a bounded number a step, and nothing else', async () => {
    await rows(1_500, 2);
    await rows(3, null);
    await rows(2_000, 3);
    await rows(10, 0.5);
    await rows(3_000, 0.2);
    const retention = new MarkRetention(scene.config, HOUR_MS);
    assert.equal(await retention.step(scene.client, 0), true);
    assert.equal(await scene.count('outbox'), 6_513 - 100, 'one page');
    await walk(retention);
    assert.equal(await scene.count('outbox'), 3_013);
    assert.equal(await scene.count('outbox where delivered_at is null'), 3);
    assert.equal(await walk(retention), 1, 'a walk ends where rows are too young');
  });

  test('P6 undelivered rows in front hide nothing, and what was delivered late is found by a later walk', async () => {
    await rows(5_000, null);
    await rows(1_500, 2);
    const retention = new MarkRetention(scene.config, HOUR_MS);
    await walk(retention);
    assert.equal(await scene.count('outbox'), 5_000);
    await rows(1_000, 0.5);
    await walk(retention, 1);
    await scene.sql(`update outbox set delivered_at = now() - interval '2 hours'`);
    await walk(retention, HOUR_MS + 1);
    await walk(retention, HOUR_MS + 2);
    assert.equal(await scene.count('outbox'), 0);
  });

  test('P6 a step reads the index of seq, one page of rows, whatever the table holds', async (t) => {
    await rows(100_000, 2);
    await scene.sql('analyze outbox');
    const retention = new MarkRetention(scene.config, HOUR_MS);
    const text = await scene.value(
      `explain (analyze, buffers, format json) ${retention.statement.replaceAll('$1', '0').replaceAll('$2', String(HOUR_MS))}`,
    );
    const [{ Plan: plan }] = JSON.parse(text ?? '') as [{ Plan: Plan }];
    assert.deepEqual(
      nodes(plan).filter((type) => type === 'Seq Scan' || type.startsWith('Bitmap')),
      [],
    );
    const blocks = plan['Shared Hit Blocks'] + plan['Shared Read Blocks'];
    assert.ok(blocks < 800, `${blocks} pages touched for a hundred rows`);
    t.diagnostic(`${blocks} pages touched`);
    assert.equal(await scene.count('outbox'), 99_900);
  });

  test('the running relay deletes them beside delivery', { timeout: 40_000 }, async () => {
    await rows(2_500, 2);
    await rows(10, null);
    const relay = scene.relay();
    try {
      await until(async () => (await scene.count('outbox')) === 10, { timeoutMs: 20_000, what: 'ten rows' });
      await until(() => relay.publisher.received.length === 10, { what: 'ten events' });
      assert.equal(await scene.count('outbox where delivered_at is not null'), 10);
    } finally {
      await relay.stop();
    }
  });
});

function nodes(plan: Plan): string[] {
  return [plan['Node Type'], ...(plan.Plans ?? []).flatMap(nodes)];
}
