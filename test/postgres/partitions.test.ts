import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import type { Client } from 'pg';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import { RelayError } from '../../src/errors/errors.ts';
import { LOCK_TIMEOUT } from '../../src/pipeline/settle/partition-catalog.ts';
import { PartitionDropper, type PartitionStep } from '../../src/pipeline/settle/partitions.ts';
import { connect, disconnect } from '../../src/postgres/connect.ts';
import { settingsInEachTransaction } from '../../src/postgres/pooler.ts';
import { CaptureScene, type RunningRelay } from '../support/capture.ts';
import { withClient } from '../support/database.ts';
import { until } from '../support/until.ts';

const COLUMNS = `seq bigint not null default nextval('outbox_seq'), id uuid not null default gen_random_uuid(),
  aggregatetype text not null, aggregateid text not null, type text not null, payload jsonb, headers jsonb,
  xid xid8 not null default pg_current_xact_id(), created_at timestamptz not null default clock_timestamp(),
  delivered_at timestamptz`;

const BY_TIME = `create sequence outbox_seq;
  create table outbox (${COLUMNS}, primary key (seq, created_at)) partition by range (created_at);
  create table outbox_2020 partition of outbox for values from ('2020-01-01') to ('2021-01-01');
  create table outbox_2021 partition of outbox for values from ('2021-01-01') to ('2022-01-01');
  create table outbox_now partition of outbox for values from ('2022-01-01') to ('2099-01-01');
  create table outbox_2099 partition of outbox for values from ('2099-01-01') to ('2100-01-01');`;

const BY_SEQ = `create sequence outbox_seq;
  create table outbox (${COLUMNS}, primary key (seq)) partition by range (seq);
  create table outbox_0 partition of outbox for values from (0) to (10);
  create table outbox_10 partition of outbox for values from (10) to (20);
  create table outbox_20 partition of outbox for values from (20) to (maxvalue);`;

const RETENTION_MS = 1_000;

function insert(day: string, count = 1): string {
  return `insert into outbox (aggregatetype, aggregateid, type, payload, created_at)
    select 'order', 'k', 'Placed', to_jsonb(n), timestamptz '${day}' from generate_series(1, ${count}) n`;
}

async function partitionsOf(here: CaptureScene): Promise<string[]> {
  const rows = await here.sql<'name'>(
    `select inhrelid::regclass::text as name from pg_inherits where inhparent = 'outbox'::regclass order by 1`,
  );
  return rows.map(({ name }) => name ?? '');
}

/** Each step by a new one, as if the process had been killed after the last. */
function stepper(here: CaptureScene, client: Client): () => Promise<PartitionStep> {
  return async () => await new PartitionDropper(here.config, RETENTION_MS).step(client);
}

describe('partitions', () => {
  let server: PostgresServer | undefined;
  let scene: CaptureScene | undefined;
  let relay: RunningRelay | undefined;
  const clients: Client[] = [];

  afterEach(async () => {
    await relay?.stop();
    for (const client of clients.splice(0)) await disconnect(client);
    await scene?.close();
    await server?.remove();
    server = scene = relay = undefined;
  });

  async function open(
    prepare: string,
    env: Record<string, string> = {},
    serverUrl?: string,
  ): Promise<CaptureScene> {
    scene = await CaptureScene.open({ prepare, env, ...(serverUrl && { serverUrl }) });
    await scene.sql(
      `insert into outbox_relay_progress (slot_name, outbox_table) values ($1, 'public.outbox')`,
      [scene.config.slotName],
    );
    return scene;
  }

  async function another(here: CaptureScene, settings: Record<string, string> = {}): Promise<Client> {
    const options = { applicationName: 'test', signal: new AbortController().signal, settings };
    const client = await connect(here.config.database.connection(), options);
    clients.push(client);
    return client;
  }

  for (const [version, source, cleanup] of [
    [14, 'streaming', 'delete'],
    [18, 'polling', 'mark'],
    [18, 'streaming', 'none'],
  ] as const) {
    test(
      `P1 P6 PostgreSQL ${version}, ${source}, CLEANUP=${cleanup}: rows of every partition arrive, then the ended ones are dropped`,
      { timeout: 60_000 },
      async () => {
        if (version !== 18) server = await startPostgres({ version, settings: { fsync: 'off' } });
        const env = { SOURCE: source, CLEANUP: cleanup, PARTITION_RETENTION: '1s' };
        const here = await open(BY_TIME, env, server?.url);
        await here.sql(insert('2020-06-01', 20));
        await here.sql(insert('2021-06-01', 20));
        await here.sql(insert('2026-01-01', 5));
        const running = (relay = here.relay());
        await running.logged(source === 'polling' ? /mode: polling/ : /mode: streaming/);
        // In one transaction: an empty one would be dropped at once.
        await here.client.query(
          `begin; create table outbox_2019 partition of outbox for values from ('2019-01-01') to ('2020-01-01');
           ${insert('2019-06-01', 20)}; ${insert('2026-01-01', 5)}; commit`,
        );
        for (const year of [2019, 2020, 2021])
          await running.logged(new RegExp(`partition dropped.*outbox_${year}`));
        assert.equal(running.publisher.received.length, 70);
        assert.deepEqual(await partitionsOf(here), ['outbox_2099', 'outbox_now']);
        assert.equal(await here.progress('dropping'), null);
        await here.sql(insert('2026-01-01', 5));
        await until(() => running.publisher.received.length === 75, { what: 'the events after the drops' });
      },
    );
  }

  test('P6 a reader of the whole table delays a drop, and the drop delays no writer', async () => {
    const here = await open(BY_TIME);
    const step = stepper(here, await another(here, { lock_timeout: LOCK_TIMEOUT }));
    const writer = await another(here, { statement_timeout: '2s' });
    const slowest = { ms: 0 };
    const write = async (): Promise<void> => {
      const beganMs = performance.now();
      await writer.query(insert('2026-01-01'));
      slowest.ms = Math.max(slowest.ms, performance.now() - beganMs);
    };
    await withClient(here.database.url, async (reader) => {
      await reader.query('begin isolation level repeatable read; select count(*) from outbox');
      for (let round = 0; round < 5; round++) {
        const [stepped] = await Promise.all([step(), write()]);
        assert.deepEqual(stepped, { kind: 'waiting' });
        await write();
      }
      assert.equal((await reader.query('select from outbox')).rowCount, 0, 'it reads on, in its snapshot');
      await reader.query('commit');
    });
    assert.deepEqual(await step(), { kind: 'dropped', name: 'public.outbox_2020' });
    assert.deepEqual(await step(), { kind: 'dropped', name: 'public.outbox_2021' });
    assert.deepEqual(await step(), { kind: 'idle' });
    assert.equal(await here.count('outbox'), 10);
    assert.ok(slowest.ms < 1_000, `a writer waited ${slowest.ms} ms`);
  });

  test('P1 what a transaction wrote into a partition while it was being dropped is found: it is attached again', async () => {
    const here = await open(BY_TIME);
    const step = stepper(here, await another(here, { lock_timeout: LOCK_TIMEOUT }));
    const writer = await another(here);
    await writer.query('begin');
    await writer.query(insert('2020-06-01'));
    assert.deepEqual(await step(), { kind: 'waiting' }, 'nothing is seen in it yet');
    assert.match((await here.progress('dropping')) ?? '', /outbox_2020/);
    assert.deepEqual(await step(), { kind: 'waiting' });
    await writer.query('commit');
    assert.deepEqual(await step(), { kind: 'attached-again', name: 'public.outbox_2020' });
    assert.equal(await here.count('outbox'), 1);
    assert.ok((await partitionsOf(here)).includes('outbox_2020'));
    assert.deepEqual(await step(), { kind: 'dropped', name: 'public.outbox_2021' }, 'the next one can go');
    assert.deepEqual(await step(), { kind: 'idle' });
    await here.sql('delete from outbox');
    assert.deepEqual(await step(), { kind: 'dropped', name: 'public.outbox_2020' });
  });

  test('P1 a relay killed between any two steps leaves what the next one finishes', async () => {
    const here = await open(BY_TIME);
    const step = stepper(here, await another(here, { lock_timeout: LOCK_TIMEOUT }));
    const note = async (name: string): Promise<void> => {
      await here.sql(
        `update outbox_relay_progress set dropping = (select jsonb_build_object('oid', c.oid::text,
           'name', 'public.' || relname, 'bound', pg_get_expr(relpartbound, oid)) from pg_class c where relname = $1)`,
        [name],
      );
    };
    // Noted, not begun.
    await note('outbox_2020');
    assert.deepEqual(await step(), { kind: 'waiting' });
    // Detached, with a row that nobody delivered.
    await note('outbox_2020');
    await here.sql(insert('2020-06-01'));
    await here.sql('alter table outbox detach partition outbox_2020');
    assert.deepEqual(await step(), { kind: 'attached-again', name: 'public.outbox_2020' });
    // Detached and empty.
    await here.sql('delete from outbox');
    await note('outbox_2020');
    await here.sql('alter table outbox detach partition outbox_2020');
    assert.deepEqual(await step(), { kind: 'dropped', name: 'public.outbox_2020' });
    // Gone, and another table has the name.
    await note('outbox_2021');
    await here.sql('drop table outbox_2021; create table outbox_2021 (n int)');
    assert.deepEqual(await step(), { kind: 'waiting' });
    assert.deepEqual(await step(), { kind: 'idle' });
    assert.equal(await here.count('outbox_2021'), 0);
  });

  for (const [cleanup, deliver] of [
    ['delete', 'delete from outbox'],
    ['mark', 'update outbox set delivered_at = now()'],
    ['none', `update outbox_relay_progress set horizon = pg_current_snapshot()::text`],
  ] as const) {
    test(`P1 CLEANUP=${cleanup}: no partition with an undelivered row is dropped`, async () => {
      const here = await open(BY_TIME, { CLEANUP: cleanup });
      const step = stepper(here, await another(here, { lock_timeout: LOCK_TIMEOUT }));
      await here.sql(`update outbox_relay_progress set horizon = pg_current_snapshot()::text`);
      await here.sql(insert('2020-06-01', 3));
      await here.sql(insert('2021-06-01', 3));
      assert.deepEqual(await step(), { kind: 'idle' });
      if (cleanup === 'none')
        await here.sql(
          `insert into outbox_relay_progress (slot_name, outbox_table) values ('another', 'public.outbox')`,
        );
      await here.sql(deliver);
      if (cleanup === 'none') {
        await here.sql(`update outbox_relay_progress set horizon = null where slot_name = 'another'`);
        assert.deepEqual(await step(), { kind: 'idle' }, 'another relay has not read it yet');
        await here.sql(deliver);
      }
      assert.deepEqual(await step(), { kind: 'dropped', name: 'public.outbox_2020' });
      await here.sql('drop table outbox_now, outbox_2099');
      assert.deepEqual(await step(), { kind: 'idle' }, 'never the last one');
    });
  }

  test('P6 by ranges of seq: those that the sequence has passed, when their newest row is old enough', async () => {
    const here = await open(BY_SEQ, { CLEANUP: 'mark' });
    const client = await another(here, { lock_timeout: LOCK_TIMEOUT });
    const step = stepper(here, client);
    await here.sql(insert('2020-06-01', 9));
    await here.sql('update outbox set delivered_at = now()');
    assert.deepEqual(await step(), { kind: 'idle' }, 'it may get more rows');
    await here.sql(insert(new Date().toISOString(), 11));
    await here.sql('update outbox set delivered_at = now()');
    assert.deepEqual(await step(), { kind: 'dropped', name: 'public.outbox_0' });
    const strict = new PartitionDropper(here.config, 3_600_000);
    assert.deepEqual(await strict.step(client), { kind: 'idle' }, 'its newest row is young');
    await here.sql('delete from outbox');
    assert.deepEqual(await strict.step(client), { kind: 'idle' }, 'it is remembered how young');
  });

  test('what can not be dropped without harm is refused with its reason', async () => {
    const here = await open(`${BY_TIME} create table outbox_rest partition of outbox default;`);
    const bounded = await another(here, { lock_timeout: LOCK_TIMEOUT });
    const code = async (client: Client): Promise<string> => {
      const error = await new PartitionDropper(here.config, 0).step(client).then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      assert.ok(error instanceof RelayError);
      return error.code;
    };
    assert.equal(await code(bounded), 'partition-default');
    await here.sql('drop table outbox_rest');
    const pooled = await another(here);
    settingsInEachTransaction(pooled, {});
    assert.equal(await code(pooled), 'partition-pooler');
    await withClient(here.database.url, async (reader) => {
      await reader.query('begin; select from outbox');
      await assert.rejects(bounded.query('alter table outbox detach partition outbox_2020 concurrently'));
      assert.equal(await code(bounded), 'partition-pending');
      await reader.query('commit');
    });
    await here.sql('alter table outbox detach partition outbox_2020 finalize');
    await here.sql('drop table outbox; create table outbox (seq bigint)');
    assert.equal(await code(bounded), 'partition-key');
  });
});
