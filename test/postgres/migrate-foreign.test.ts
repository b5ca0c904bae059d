import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { classify } from '../../src/errors/policy.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { type FreshDatabase, freshDatabase, withClient } from '../support/database.ts';
import { migrationOptions } from '../support/default-outbox.ts';

const ALL = ['0001_outbox', '0002_relay', '0003_emit', 'publication'];

describe('migrations and what somebody else has made', () => {
  let database: FreshDatabase;
  beforeEach(async () => void (database = await freshDatabase()));
  afterEach(async () => await database.drop());

  async function sql(text: string): Promise<Record<string, unknown>[]> {
    return await withClient(database.url, async (client) => (await client.query(text)).rows);
  }

  async function run() {
    return await withClient(database.url, async (client) => await migrate(client, migrationOptions()));
  }

  test('a publication that migrate made is completed, another table in it stays', async () => {
    await run();
    await sql(`create table other (a int); alter publication outbox_relay set table other`);
    await sql(`alter publication outbox_relay set (publish = 'update', publish_via_partition_root = false)`);
    assert.deepEqual((await run()).applied, ['publication']);
    const tables = await sql(`select tablename from pg_publication_tables order by 1`);
    assert.deepEqual(
      tables.map((row) => row['tablename']),
      ['other', 'outbox'],
    );
    assert.deepEqual(await sql('select pubinsert from pg_publication'), [{ pubinsert: true }]);
    assert.deepEqual((await run()).applied, []);
  });

  test('P10 a publication of somebody else is not altered: the statement is told', async () => {
    await sql(
      `create table other (a int); create publication outbox_relay for table other with (publish = 'update')`,
    );
    const report = await run();
    assert.deepEqual(report.applied, ALL.slice(0, 3));
    const [remark] = report.remarks;
    assert.match(remark?.message ?? '', /not made by "migrate"/);
    assert.match(remark?.remedy ?? '', /alter publication "outbox_relay" add table "public"\."outbox"/);
    assert.deepEqual(await sql('select tablename from pg_publication_tables'), [{ tablename: 'other' }]);
    assert.deepEqual(await sql('select pubinsert from pg_publication'), [{ pubinsert: false }]);
  });

  for (const [what, restriction] of [
    ['a row filter', `outbox where (type = 'T')`],
    ['a column list', 'outbox (id, seq)'],
  ] as const)
    test(`P1 ${what} that somebody put on the publication does not count as covering the outbox`, async () => {
      await run();
      await sql(`alter publication outbox_relay set table ${restriction}`);
      assert.deepEqual((await run()).applied, ['publication']);
      assert.deepEqual((await run()).applied, []);
      const [row] = await sql(
        'select rowfilter, cardinality(attnames) > 5 as all from pg_publication_tables',
      );
      assert.deepEqual(row, { rowfilter: null, all: true });
    });

  for (const [what, make, kept] of [
    [
      'function',
      `create function outbox_emit(a text, b text, c text, d jsonb, e jsonb default null) returns uuid
         language sql as 'select null::uuid'`,
      `select prosrc from pg_proc where proname = 'outbox_emit' and prosrc = 'select null::uuid'`,
    ],
    [
      'function',
      `create function outbox_lock_key() returns trigger language plpgsql as 'begin return new; end'`,
      `select from pg_proc where proname = 'outbox_lock_key' and prosrc like 'begin return%'`,
    ],
    [
      'sequence',
      'create sequence outbox_seq',
      `select from pg_sequences where sequencename = 'outbox_seq' and last_value is null`,
    ],
  ] as const)
    test(`P10 a ${what} of somebody else is not taken over: ${make.slice(0, 36)}`, async () => {
      await sql(make);
      await assert.rejects(run(), (error) => {
        const verdict = classify(error);
        assert.deepEqual([verdict.consequence, verdict.code], ['stop', 'name-taken']);
        return verdict.advice.includes(`ALTER ${what.toUpperCase()} "public".`);
      });
      assert.equal((await sql(kept)).length, 1);
    });
});
