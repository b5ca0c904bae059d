import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { CaptureScene, type RunningRelay } from '../support/capture.ts';

/** As the application's migrations would change it, while the relay streams. */
describe('the outbox table changes under the stream', () => {
  let scene: CaptureScene;
  let relay: RunningRelay | undefined;

  beforeEach(async () => void (scene = await CaptureScene.open()));

  afterEach(async () => {
    relay = undefined;
    await scene.close();
  });

  async function streaming(env?: Record<string, string>): Promise<RunningRelay> {
    relay = await scene.streaming(undefined, env);
    await scene.insert(2);
    return relay;
  }

  function numbers(): number[] {
    return relay?.numbers ?? [];
  }

  test('P1 a column is added and later dropped: events flow, routing by it works', async () => {
    const running = await streaming({ ROUTE_KEY: '${aggregateid}' });
    await scene.sql(`alter table outbox add column tenant text default 'a'`);
    await scene.insert(2, 3);
    await scene.sql(`alter table outbox drop column tenant`);
    await scene.insert(2, 5);
    await scene.untilEmpty();
    assert.deepEqual(numbers(), [1, 2, 3, 4, 5, 6]);
    assert.deepEqual(
      running.publisher.received.map(({ key }) => key),
      ['key-1', 'key-2', 'key-3', 'key-4', 'key-5', 'key-6'],
    );
  });

  test('P1 a column changes its type inside the transaction that writes', async () => {
    await streaming();
    await scene.client.query('begin');
    await scene.insert(1, 3);
    await scene.sql('alter table outbox alter column aggregateid type text');
    await scene.insert(1, 4);
    await scene.client.query('commit');
    await scene.untilEmpty();
    assert.deepEqual(numbers(), [1, 2, 3, 4]);
  });

  test('P2 a publication of all tables: those that come and go beside the outbox stop nothing', async () => {
    await scene.sql('create publication everything for all tables');
    await streaming({ PUBLICATION_NAME: 'everything' });
    await scene.sql(`create table stage_x (n int); insert into stage_x values (1)`);
    await scene.sql(
      'create table twin (like outbox including all); insert into twin (aggregatetype, aggregateid, type) values ($$a$$, $$b$$, $$c$$)',
    );
    await scene.sql('drop table stage_x');
    await scene.insert(1, 3);
    await scene.untilEmpty();
    assert.deepEqual(numbers(), [1, 2, 3]);
  });

  test('P2 P8 a second outbox joins the publication while the first one streams: each keeps its own', async () => {
    await streaming();
    await scene.sql('create table outbox2 (like outbox including all)');
    await scene.sql('alter publication outbox_relay add table outbox2');
    for (const n of [101, 102])
      await scene.sql(
        `insert into outbox2 (aggregatetype, aggregateid, type, payload) values ('order', 'k', 't', '{"n": ${n}}')`,
      );
    await scene.insert(2, 3);
    await scene.untilEmpty();
    assert.deepEqual(numbers(), [1, 2, 3, 4]);
    assert.equal(await scene.count('outbox2'), 2);
  });

  test('P1 a column that the address needs is renamed: waited for, not parked', async () => {
    const running = await streaming();
    await scene.untilEmpty();
    await scene.sql('alter table outbox rename column aggregateid to agg');
    await scene.sql(
      `insert into outbox (aggregatetype, agg, type, payload) values ('order', 'k', 't', '{"n": 3}')`,
    );
    await running.logged(/lacks (?:column )?aggregateid/);
    await scene.sql('alter table outbox rename column agg to aggregateid');
    assert.equal(await scene.count('outbox_relay_dead_letters'), 0);
  });

  test('P10 rows written before the column that the address needs: they are parked, and the stream goes on', async () => {
    await scene.handOver();
    await scene.insert(2);
    await scene.sql(`alter table outbox add column tenant text default 'acme'`);
    await scene.insert(2, 3);
    relay = scene.relay(undefined, { ROUTE_KEY: '${tenant}' });
    await scene.untilEmpty(40_000);
    assert.deepEqual(numbers(), [3, 4]);
    const letters = await scene.sql<'code'>('select code from outbox_relay_dead_letters');
    assert.deepEqual(
      letters.map(({ code }) => code),
      ['address-incomplete', 'address-incomplete'],
    );
    assert.ok(!relay.logLines.some((line) => line.includes('halted')));
  });

  test('P1 the table is made again with its columns in another order: what it held and gets is delivered', async () => {
    const running = await streaming();
    await scene.untilEmpty();
    await scene.client.query(
      `begin;
       create table replacement (payload jsonb, "type" text not null, delivered_at timestamptz, note text,
         aggregateid text not null, aggregatetype text not null, id uuid not null default gen_random_uuid(),
         created_at timestamptz not null default clock_timestamp(), xid xid8 not null default pg_current_xact_id(),
         headers jsonb, seq bigint primary key default nextval('outbox_seq'));
       alter sequence outbox_seq owned by replacement.seq;
       drop table outbox;
       alter table replacement rename to outbox;
       commit`,
    );
    await scene.insert(2, 3);
    await scene.untilEmpty(40_000);
    await scene.insert(2, 5);
    await scene.untilEmpty(40_000);
    assert.deepEqual(numbers(), [1, 2, 3, 4, 5, 6]);
    await running.logged(/publication-uncovered/);
    const metrics = await running.relay.observer.metrics.text();
    assert.match(metrics, /^outbox_relay_orphans_total 2$/m, 'the last two came by the stream');
  });

  test('the table is renamed: a clear stop, and nothing is lost once it is back', async () => {
    const running = await streaming();
    await scene.untilEmpty();
    await scene.sql('alter table outbox rename to outbox_old');
    await scene.sql(
      `insert into outbox_old (aggregatetype, aggregateid, type, payload) values ('order', 'k', 't', '{"n": 3}')`,
    );
    const line = await running.logged(/halted: this needs a person/);
    assert.match(line, /table-missing/);
    assert.match(line, /OUTBOX_TABLE/);
    await running.stop();
    await scene.sql('alter table outbox_old rename to outbox');
    const before = numbers();
    relay = scene.relay();
    await scene.untilEmpty();
    assert.deepEqual([...new Set([...before, ...numbers()])], [1, 2, 3]);
  });

  test('a required column is dropped: a clear stop that names it', async () => {
    const running = await streaming();
    await scene.untilEmpty();
    await scene.sql('alter table outbox drop column payload');
    await scene.sql(`insert into outbox (aggregatetype, aggregateid, type) values ('order', 'k', 't')`);
    const line = await running.logged(/halted: this needs a person/);
    assert.match(line, /column-missing/);
    assert.match(line, /lacks column payload/);
    assert.equal(await scene.count('outbox'), 1);
  });

  test('P1 a partitioned outbox: rows of every partition, from the table and from the stream', async () => {
    await scene.close();
    scene = await CaptureScene.open({
      prepare: `create table outbox (id uuid not null default gen_random_uuid(), aggregatetype text not null,
        aggregateid text not null, type text not null, payload jsonb) partition by hash (aggregateid);
        create table outbox_0 partition of outbox for values with (modulus 3, remainder 0);
        create table outbox_1 partition of outbox for values with (modulus 3, remainder 1);`,
    });
    await scene.sql('create table outbox_2 partition of outbox for values with (modulus 3, remainder 2)');
    await scene.insert(10);
    relay = await scene.streaming();
    await scene.insert(10, 11);
    await scene.untilEmpty();
    assert.deepEqual(
      numbers(),
      Array.from({ length: 20 }, (_, index) => index + 1),
    );
  });

  test('P1 a partition is attached with rows in it: they are found and delivered', async () => {
    await scene.close();
    scene = await CaptureScene.open({
      prepare: `create table outbox (id uuid not null default gen_random_uuid(), aggregatetype text not null,
        aggregateid text not null, type text not null, payload jsonb) partition by list (aggregatetype);
        create table outbox_order partition of outbox for values in ('order');`,
    });
    relay = await scene.streaming();
    await scene.sql(`create table other (like outbox including defaults)`);
    await scene.sql(
      `insert into other (aggregatetype, aggregateid, type, payload) values ('other', 'k', 't', '{"n": 1}')`,
    );
    await scene.sql(`alter table outbox attach partition other for values in ('other')`);
    await scene.untilEmpty(40_000);
    assert.deepEqual(numbers(), [1]);
  });

  test('P1 P3 a publication of all tables, not by the root: a partition that is made while streaming is ours', async () => {
    await scene.close();
    scene = await CaptureScene.open({
      prepare: `create table outbox (id uuid not null default gen_random_uuid(), aggregatetype text not null,
        aggregateid text not null, type text not null, payload jsonb) partition by list (type);
        create table outbox_placed partition of outbox for values in ('Placed');`,
    });
    await scene.sql(`create publication everything for all tables with (publish = 'insert')`);
    const running = await streaming({ PUBLICATION_NAME: 'everything' });
    await scene.sql(`create table outbox_shipped partition of outbox for values in ('Shipped')`);
    for (let n = 3; n <= 20; n++)
      await scene.sql(`select outbox_emit('order', 'key', $1, $2)`, [
        n % 2 === 0 ? 'Placed' : 'Shipped',
        `{"n": ${n}}`,
      ]);
    await scene.untilEmpty();
    assert.deepEqual(
      numbers(),
      Array.from({ length: 20 }, (_, index) => index + 1),
    );
    assert.ok(running.logLines.some((line) => line.includes('relation-unknown')));
    assert.doesNotMatch(await running.relay.observer.metrics.text(), /orphans_total [1-9]/);
  });
});
