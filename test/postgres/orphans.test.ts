import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { CaptureScene, type RunningRelay } from '../support/capture.ts';
import { until } from '../support/until.ts';

const PARTITIONED = `create table outbox (id uuid not null default gen_random_uuid(), aggregatetype text not null,
  aggregateid text not null, type text not null, payload jsonb) partition by list (aggregatetype);
  create table outbox_order partition of outbox for values in ('order');`;
/**
 * Rows as a dump of another server has them: numbers that were given out here too, transactions that lie far behind,
 * far ahead, and where this server's next ones will be.
 */
const DUMP = `(aggregatetype, aggregateid, type, payload, seq, xid)
  select 'dump', 'k', 't', format('{"n": %s}', 100 + n)::jsonb, n, xid
    from (values (1, '3'), (2, '99999999999'), (3, '4294967299'), (4, pg_current_xact_id()::text::bigint + 2)) as d(n, x),
         lateral (select x::text::xid8 as xid) as parsed`;
const DUMPED = [101, 102, 103, 104];

async function assertOrphans(here: CaptureScene, running: RunningRelay): Promise<void> {
  // Beside what the stream goes on to bring.
  await here.insert(5, 6);
  await here.untilEmpty(40_000);
  await here.insert(1, 11);
  await here.untilEmpty(40_000);
  const { numbers } = running;
  const streamed = Array.from({ length: 11 }, (_, index) => index + 1);
  assert.deepEqual(
    numbers.toSorted((a, b) => a - b),
    [...streamed, ...DUMPED],
    'each once',
  );
  assert.deepEqual(
    numbers.filter((n) => n > 100),
    DUMPED,
    'in their order',
  );
  const metrics = await running.relay.observer.metrics.text();
  assert.match(metrics, new RegExp(`^outbox_relay_orphans_total ${DUMPED.length}$`, 'm'));
}

async function streaming(here: CaptureScene): Promise<RunningRelay> {
  const relay = await here.streaming();
  await here.insert(5);
  await here.untilEmpty();
  return relay;
}

/** Rows that are in the table and that no stream ever brings. */
describe('orphans', () => {
  let scene: CaptureScene | undefined;

  afterEach(async () => {
    await scene?.close();
    scene = undefined;
  });

  test('P1 P4 a partition is attached that holds rows of another server: each delivered once, counted', async () => {
    const here = (scene = await CaptureScene.open({ prepare: PARTITIONED }));
    const running = await streaming(here);
    await here.sql('create table other (like outbox including defaults)');
    await here.sql(`insert into other ${DUMP}`);
    await here.sql(`alter table outbox attach partition other for values in ('dump')`);
    await assertOrphans(here, running);
  });

  test('P1 P4 the table is restored from a dump of another server: each row delivered once, counted', async () => {
    const here = (scene = await CaptureScene.open());
    const running = await streaming(here);
    // As pg_restore --clean does it: the new table is in no publication until the relay finds that out.
    await here.client.query(
      `begin; set local session_replication_role = replica;
       create table restored (like outbox including all);
       insert into restored ${DUMP};
       alter sequence outbox_seq owned by none;
       drop table outbox;
       alter table restored rename to outbox;
       alter sequence outbox_seq owned by outbox.seq;
       commit`,
    );
    await running.logged(/publication-uncovered/, 30_000);
    await until(async () => (await here.value(`select 1 from pg_publication_tables`)) === '1', {
      what: 'the publication to have the table again',
      timeoutMs: 30_000,
    });
    await running.logged(
      /mode: streaming/,
      30_000,
      running.logLines.findIndex((line) => /uncovered/.test(line)),
    );
    await assertOrphans(here, running);
  });
});
