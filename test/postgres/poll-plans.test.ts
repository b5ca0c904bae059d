import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Client } from 'pg';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import { CaptureScene } from '../support/capture.ts';
import { withClient } from '../support/database.ts';
import { PLAN_SETTINGS, recording, TablePoller, type Statement } from '../support/table-poller.ts';

/** Removed or marked rows that a look must not read. */
const DONE_ROWS = 100_000;
/** A little more than a page. */
const WAITING_ROWS = 2_100;
/** The way down the index, the few pages of the last rows, the sequence, the catalog. */
const LOOK_PAGES = 100;

interface PlanNode {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Rows Removed by Filter'?: number;
  readonly Plans?: readonly PlanNode[];
}

interface Explained {
  /** Pages read, from memory or not. */
  readonly pages: number;
  readonly nodes: readonly PlanNode[];
}

async function explain(client: Client, { text, values }: Statement): Promise<Explained> {
  const { rows } = await client.query<{ 'QUERY PLAN': string }>(
    `explain (analyze, buffers, timing off, format json) ${text}`,
    [...values],
  );
  const plan = rows[0]?.['QUERY PLAN'];
  const [{ Plan: root }] = (typeof plan === 'string' ? JSON.parse(plan) : plan) as [{ Plan: PlanNode }];
  const buffers = root as unknown as Record<string, number>;
  return {
    pages: (buffers['Shared Hit Blocks'] ?? 0) + (buffers['Shared Read Blocks'] ?? 0),
    nodes: flatten(root),
  };
}

function flatten(node: PlanNode): PlanNode[] {
  return [node, ...(node.Plans ?? []).flatMap(flatten)];
}

async function fill(client: Client, rows: number): Promise<void> {
  await client.query(
    `insert into outbox (aggregatetype, aggregateid, type, payload)
     select 'thing', 'key-' || n % 100, 'Happened', jsonb_build_object('n', n) from generate_series(1, $1::int) n`,
    [rows],
  );
}

/** Each statement finds its rows by an index that brings them in order, and looks at no others. */
async function assertIndexed(client: Client, statements: readonly Statement[]): Promise<void> {
  const ofTable = statements.filter(({ text }) => text.includes('"outbox"'));
  assert.ok(ofTable.length > 1);
  for (const statement of new Map(ofTable.map((each) => [each.text, each])).values()) {
    const { nodes } = await explain(client, statement);
    const bad = nodes.filter(
      (node) =>
        (node['Node Type'] === 'Seq Scan' && node['Relation Name'] !== 'outbox_seq') ||
        node['Node Type'].includes('Sort') ||
        (node['Rows Removed by Filter'] ?? 0) > 0,
    );
    assert.deepEqual(bad, [], statement.text);
  }
}

/** Until the bound is above everything. */
async function pollAll(scene: CaptureScene): Promise<TablePoller> {
  const poller = new TablePoller(scene.config, scene.client);
  const above = DONE_ROWS + WAITING_ROWS;
  const done = (): boolean => poller.delivered.length === WAITING_ROWS && (poller.bounds.at(-1) ?? 0) > above;
  await poller.wait(done, 'the bound to be above everything');
  await poller.stop();
  return poller;
}

function first(poller: TablePoller): Statement {
  return poller.looks[0] as Statement;
}

function last(poller: TablePoller): Statement {
  return poller.looks.findLast(({ values }) => values.length > 1) as Statement;
}

describe('what a look reads', () => {
  let server: PostgresServer;
  before(async () => {
    server = await startPostgres();
  });
  after(async () => await server.remove());

  for (const cleanup of ['delete', 'mark'] as const) {
    test(
      `CLEANUP=${cleanup}: no more than the rows that wait, also under an old snapshot`,
      { timeout: 90_000 },
      async () => {
        const env = { SOURCE: 'polling', CLEANUP: cleanup };
        const scene = await CaptureScene.open({ serverUrl: server.url, env });
        const { url } = scene.database;
        try {
          await scene.sql('alter table outbox set (autovacuum_enabled = false)');
          await withClient(url, async (other) => {
            const poller = await withClient(url, async (elsewhere) => {
              await elsewhere.query('begin isolation level repeatable read; select 1');
              await fill(other, DONE_ROWS);
              await other.query(
                cleanup === 'delete' ? 'delete from outbox' : 'update outbox set delivered_at = now()',
              );
              await fill(other, WAITING_ROWS);
              const polling = await pollAll(scene);
              await other.query(PLAN_SETTINGS);
              const whole = await explain(other, first(polling));
              assert.ok(whole.pages > DONE_ROWS / 100, `removed rows cost nothing: ${whole.pages} pages`);
              const { pages } = await explain(other, last(polling));
              assert.ok(pages <= LOOK_PAGES, `${pages} pages`);
              return polling;
            });
            await assertIndexed(other, poller.statements);
            await other.query('vacuum analyze outbox');
            await assertIndexed(other, poller.statements);
            const { pages } = await explain(other, first(poller));
            assert.ok(pages <= LOOK_PAGES, `kept rows cost ${pages} pages`);
          });
        } finally {
          await scene.close();
        }
      },
    );
  }

  for (const cleanup of ['delete', 'mark', 'none'] as const) {
    test(`CLEANUP=${cleanup}: the pass over what a snapshot sees`, async () => {
      const scene = await CaptureScene.open({ serverUrl: server.url, env: { CLEANUP: cleanup } });
      try {
        await fill(scene.client, DONE_ROWS / 10);
        await scene.sql(PLAN_SETTINGS);
        const { client, statements } = recording(scene.client);
        const pass = await scene.tablePass({ client, afterSeq: DONE_ROWS / 20 });
        for await (const { events } of pass.batches(AbortSignal.timeout(30_000)))
          assert.ok(events.length > 0);
        await assertIndexed(scene.client, statements);
      } finally {
        await scene.close();
      }
    });
  }
});
