import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { classify } from '../../src/errors/policy.ts';
import { type MigrationOptions, migrate } from '../../src/postgres/migrate.ts';
import { type FreshDatabase, freshDatabase, withClient } from '../support/database.ts';
import { migrationOptions } from '../support/default-outbox.ts';
import { until } from '../support/until.ts';

const TABLE = `create table outbox (id uuid not null primary key default gen_random_uuid(),
  aggregatetype text not null, aggregateid text not null, type text not null, payload jsonb)`;
const INSERT = `insert into outbox (aggregatetype, aggregateid, type) values ('a', 'b', 'c')`;

describe('migrations and writers', () => {
  let database: FreshDatabase;
  beforeEach(async () => void (database = await freshDatabase()));
  afterEach(async () => await database.drop());

  async function sql(text: string): Promise<Record<string, unknown>[]> {
    return await withClient(database.url, async (client) => (await client.query(text)).rows);
  }

  async function run(changes: Partial<MigrationOptions> = {}) {
    return await withClient(
      database.url,
      async (client) => await migrate(client, migrationOptions({ adopt: true, ...changes })),
    );
  }

  test('P10 a long transaction makes --adopt try again, and holds writers up for moments only', async () => {
    await sql(TABLE);
    const progress: string[] = [];
    await withClient(database.url, async (holder) => {
      await holder.query(`begin; ${INSERT}`);
      const adoption = run({ onProgress: (text) => void progress.push(text) });
      await until(
        async () =>
          (await sql(`select from pg_locks where not granted and mode = 'AccessExclusiveLock'`)).length > 0,
        { what: 'the adoption to wait' },
      );
      const startedMs = performance.now();
      await sql(INSERT);
      assert.ok(performance.now() - startedMs < 6_000, `a writer waited ${performance.now() - startedMs} ms`);
      await holder.query('commit');
      assert.ok((await adoption).applied.includes('adopt'));
    });
    assert.match(progress[0] ?? '', /attempt 2 of 60/);
    assert.deepEqual(await sql('select seq::int from outbox order by seq'), [{ seq: 1 }, { seq: 2 }]);
  });

  test('P10 a transaction that does not end is told', async () => {
    await sql(TABLE);
    await withClient(database.url, async (holder) => {
      await holder.query(`begin; ${INSERT}`);
      await assert.rejects(run({ lockAttempts: 1 }), (error) => {
        const { code, advice } = classify(error);
        return code === 'lock' && advice.includes('pg_stat_activity');
      });
    });
  });

  test('the index for CLEANUP=mark keeps no writer of an existing table out', async () => {
    await run();
    await sql(INSERT);
    await withClient(database.url, async (holder) => {
      await holder.query(`begin; ${INSERT}`);
      const indexing = run({ cleanup: 'mark' });
      await until(
        async () =>
          (await sql(`select from pg_stat_progress_create_index where phase like 'waiting%'`)).length > 0,
        { what: 'the build to wait for the older transaction' },
      );
      await sql(`set lock_timeout = '1s'; ${INSERT}`);
      await holder.query('commit');
      assert.deepEqual((await indexing).applied, ['undelivered-index']);
    });
    assert.deepEqual((await run({ cleanup: 'mark' })).applied, []);
  });

  test('an index that an interrupted build left is made anew', async () => {
    await run({ cleanup: 'mark' });
    await sql(INSERT);
    await sql(`update pg_index set indisvalid = false where indexrelid = 'outbox_undelivered'::regclass`);
    const dry = await run({ cleanup: 'mark', dryRun: true });
    assert.match(dry.sql, /not in a transaction\ndrop index concurrently.*\ncreate index concurrently/);
    assert.deepEqual((await run({ cleanup: 'mark' })).applied, ['undelivered-index']);
    const [row] = await sql(
      `select indisvalid from pg_index where indexrelid = 'outbox_undelivered'::regclass`,
    );
    assert.deepEqual(row, { indisvalid: true });
  });
});
