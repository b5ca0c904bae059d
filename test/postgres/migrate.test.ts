import assert from 'node:assert/strict';
import { after, beforeEach, afterEach, describe, test } from 'node:test';
import { classify } from '../../src/errors/policy.ts';
import { quoteIdentifier } from '../../src/postgres/identifier.ts';
import { type MigrationOptions, type MigrationReport, migrate } from '../../src/postgres/migrate.ts';
import { type FreshDatabase, freshDatabase, withClient } from '../support/database.ts';
import { DEFAULT_OUTBOX, migrationOptions } from '../support/default-outbox.ts';
import { uniqueName } from '../support/names.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

const ALL = ['0001_outbox', '0002_relay', '0003_emit', 'publication'];

function options(
  changes: Partial<MigrationOptions> & { table?: string; schema?: string } = {},
): MigrationOptions {
  const { table = 'outbox', schema = 'public', ...rest } = changes;
  return migrationOptions({ outbox: { ...DEFAULT_OUTBOX, schema, table }, ...rest });
}

/** A role without any privilege, and the database's URL for it. */
interface Role {
  readonly name: string;
  readonly url: string;
}

describe('migrations', () => {
  let database: FreshDatabase;
  const roles: Role[] = [];

  beforeEach(async () => {
    database = await freshDatabase();
  });

  afterEach(async () => await database.drop());

  after(async () => {
    const server = new URL(database.url);
    server.pathname = '/postgres';
    await withClient(server.href, async (client) => {
      for (const role of roles) await client.query(`drop role if exists ${role.name}`);
    });
  });

  async function sql(text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
    return await withClient(database.url, async (client) => (await client.query(text, values)).rows);
  }

  async function run(
    changes: Parameters<typeof options>[0] = {},
    url = database.url,
  ): Promise<MigrationReport> {
    return await withClient(url, async (client) => await migrate(client, options(changes)));
  }

  async function newRole(): Promise<Role> {
    const name = uniqueName('role');
    await sql(`create role ${name} login password 'secret'`);
    const url = new URL(database.url);
    url.username = name;
    url.password = 'secret';
    const role = { name, url: url.href };
    roles.push(role);
    return role;
  }

  test('a fresh database gets everything, a second run finds nothing to do', async () => {
    assert.deepEqual((await run()).applied, ALL);
    const again = await run();
    assert.deepEqual(again, { applied: [], sql: '', remarks: [] });
    const publication = await sql(
      `select pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot from pg_publication`,
    );
    assert.deepEqual(publication, [
      { pubinsert: true, pubupdate: false, pubdelete: false, pubtruncate: false, pubviaroot: true },
    ]);
  });

  test('two processes may migrate at once', async () => {
    const reports = await Promise.all([run(), run(), run()]);
    assert.deepEqual(reports.flatMap((report) => report.applied).sort(), ALL);
  });

  test('--dry-run changes nothing, and what it prints does the same by hand', async () => {
    const dry = await run({ dryRun: true, cleanup: 'mark' });
    assert.equal((await sql(`select from pg_class where relname like 'outbox%'`)).length, 0);
    await sql(dry.sql);
    assert.deepEqual((await run({ cleanup: 'mark' })).applied, []);
    const indexes = await sql(`select indexdef from pg_indexes where indexname = 'outbox_undelivered'`);
    assert.match(String(indexes[0]?.['indexdef']), /WHERE \(delivered_at IS NULL\)/);
  });

  test('names are quoted whatever they hold', async () => {
    const schema = `we"ird 'sch;ema`;
    const table = `out "box"; drop table x; ${'é'.repeat(15)}`;
    assert.deepEqual((await run({ schema, table })).applied, ['schema', ...ALL]);
    assert.deepEqual((await run({ schema, table })).applied, []);
    await sql(`select ${quoteIdentifier(schema)}.outbox_emit('a', 'b', 'c', '1')`);
    const name = `${quoteIdentifier(schema)}.${quoteIdentifier(table)}`;
    assert.deepEqual(await sql(`select seq, payload from ${name}`), [{ seq: '1', payload: 1 }]);
  });

  test('outbox_emit writes one event with the transaction that is in progress, under any search_path', async () => {
    await run();
    await withClient(database.url, async (client) => {
      await client.query(`begin; savepoint a; set local search_path = pg_catalog`);
      const emitted = await client.query(
        `select public.outbox_emit('order', '42', 'Placed', '{"n": 9007199254740993}', '{"h": "1"}') as id`,
      );
      const rows = await client.query(
        `select id, aggregatetype, aggregateid, type, payload::text, headers::text, seq,
                xid = pg_current_xact_id() as own, created_at <= clock_timestamp() as created, delivered_at
           from public.outbox`,
      );
      await client.query('rollback');
      assert.deepEqual(rows.rows, [
        {
          id: emitted.rows[0].id,
          aggregatetype: 'order',
          aggregateid: '42',
          type: 'Placed',
          payload: '{"n": 9007199254740993}',
          headers: '{"h": "1"}',
          seq: '1',
          own: true,
          created: true,
          delivered_at: null,
        },
      ]);
    });
  });

  for (const [way, prepare, write] of [
    ['outbox_emit', '', `select outbox_emit('order', $1, 'T', '{}')`],
    [
      'the trigger',
      'create trigger lock_key before insert on outbox for each row execute function outbox_lock_key()',
      `insert into outbox (aggregatetype, aggregateid, type, payload) values ('order', $1, 'T', '{}')`,
    ],
  ] as const) {
    test(`P3 ${way} makes seq follow the commits of one key, and other keys don't wait`, async () => {
      await run();
      if (prepare !== '') await sql(prepare);
      await withClient(database.url, async (first) => {
        await withClient(database.url, async (second) => {
          await first.query('begin');
          await first.query(write, ['same']);
          const waiting = second.query(write, ['same']);
          await until(
            async () =>
              (
                await sql(`select from pg_locks l where locktype = 'advisory' and not granted and database =
                (select oid from pg_database where datname = current_database())`)
              ).length === 1,
            { what: 'the second writer to wait for the first' },
          );
          await sql(write, ['other']);
          await first.query(write, ['same']);
          await first.query('commit');
          await waiting;
        });
      });
      const rows = await sql(
        `select aggregateid, seq::int as seq, xid::text as xid from outbox where aggregateid = 'same' order by seq`,
      );
      assert.equal(rows.length, 3);
      assert.equal(rows[0]?.['xid'], rows[1]?.['xid']);
      assert.notEqual(rows[1]?.['xid'], rows[2]?.['xid']);
    });
  }

  test('a role that owns only the schema of the outbox can do all but the publication', async () => {
    const role = await newRole();
    await sql(`create schema app authorization ${role.name}`);
    const report = await run({ schema: 'app' }, role.url);
    assert.deepEqual(report.applied, ALL.slice(0, 3));
    const [publication, replication] = report.remarks;
    assert.match(
      publication?.remedy ?? '',
      new RegExp(`GRANT CREATE ON DATABASE "${database.name}" TO "${role.name}";`),
    );
    assert.equal(replication?.remedy, `ALTER ROLE "${role.name}" REPLICATION;`);

    await sql(
      `grant create on database ${database.name} to ${role.name}; alter role ${role.name} replication`,
    );
    assert.deepEqual(
      await run({ schema: 'app' }, role.url).then(({ applied, remarks }) => ({ applied, remarks })),
      {
        applied: ['publication'],
        remarks: [],
      },
    );
  });

  test('a missing privilege on the schema is told with its GRANT', async () => {
    const role = await newRole();
    await sql('create schema app');
    for (const [schema, advice] of [
      ['app', `GRANT CREATE, USAGE ON SCHEMA "app" TO "${role.name}";`],
      ['none', `GRANT CREATE ON DATABASE "${database.name}" TO "${role.name}";`],
    ] as const) {
      await assert.rejects(run({ schema }, role.url), (error) => {
        const verdict = classify(error);
        assert.equal(verdict.consequence, 'stop');
        assert.equal(verdict.code, 'privilege');
        assert.ok(verdict.advice.includes(advice), verdict.advice);
        return true;
      });
    }
  });

  const DEBEZIUM = `create table outbox (
    id uuid not null primary key, aggregatetype varchar(255) not null, aggregateid varchar(255) not null,
    type varchar(255) not null, payload jsonb)`;

  test('a Debezium table stays as it is without --adopt, and is completed with it', async () => {
    await sql(DEBEZIUM);
    await sql(
      `insert into outbox select gen_random_uuid(), 'order', n::text, 'T', '{}' from generate_series(1, 50) n`,
    );
    await assert.rejects(
      run({ cleanup: 'mark' }),
      /has no column seq, xid, created_at, delivered_at, headers/,
    );
    const report = await run();
    assert.deepEqual(report.applied, ['0002_relay']);
    assert.match(report.remarks[0]?.message ?? '', /no column seq, xid, .*: it can only be polled/);
    assert.deepEqual(await sql('select from pg_publication'), []);
    const columns = await sql(`select from pg_attribute where attrelid = 'outbox'::regclass and attnum > 0`);
    assert.equal(columns.length, 5);

    assert.deepEqual((await run({ adopt: true })).applied, [
      'adopt',
      '0001_outbox',
      '0003_emit',
      'publication',
    ]);
    const rows = await sql(`select seq::int as seq, aggregateid::int as n from outbox order by seq`);
    assert.deepEqual(
      rows,
      Array.from({ length: 50 }, (_, i) => ({ seq: i + 1, n: i + 1 })),
    );
    assert.deepEqual((await run({ adopt: true })).applied, []);

    await sql(`select outbox_emit('order', '51', 'T', '{}')`);
    // The producer's own statement goes on to work.
    await sql(
      `insert into outbox (id, aggregatetype, aggregateid, type, payload) values (gen_random_uuid(), 'order', '52', 'T', null)`,
    );
    const later = await sql(
      `select seq::int as seq, xid is not null and created_at is not null as filled from outbox where seq > 50 order by seq`,
    );
    assert.deepEqual(later, [
      { seq: 51, filled: true },
      { seq: 52, filled: true },
    ]);
  });

  test('adoption numbers by an integer id, and works on partitions and on columns of other types', async () => {
    await sql(`create table outbox (
      id bigint not null, aggregatetype text not null, aggregateid text not null, type text not null, payload bytea
    ) partition by list (aggregatetype)`);
    await sql(`create table outbox_a partition of outbox for values in ('a')`);
    await sql(`create table outbox_b partition of outbox for values in ('b')`);
    await sql(
      `insert into outbox select 100 - n, case when n % 2 = 0 then 'a' else 'b' end, 'k', 'T', '\\x00' from generate_series(1, 9) n`,
    );
    await run({ adopt: true });
    const rows = await sql('select id::int as id from outbox order by seq');
    assert.deepEqual(
      rows.map((row) => row['id']),
      [91, 92, 93, 94, 95, 96, 97, 98, 99],
    );
    const tables = await sql('select tablename from pg_publication_tables');
    assert.deepEqual(tables, [{ tablename: 'outbox' }]);
  });

  test('a table without the columns of an event is refused with the settings that name them', async () => {
    await sql(
      `create table outbox (event_id uuid, aggregatetype text, aggregateid text, type text, payload text)`,
    );
    await assert.rejects(run({ adopt: true }), (error) => {
      assert.match(classify(error).advice, /OUTBOX_ID_COLUMN/);
      return true;
    });
  });

  test('a second outbox in a schema does not take outbox_emit over', async () => {
    await run();
    await run({ table: 'invoices' });
    await sql(`select outbox_emit('a', 'b', 'first', '{}'), invoices_emit('a', 'b', 'second', '{}')`);
    const rows = await sql('select type from outbox union all select type from invoices order by 1');
    assert.deepEqual(rows, [{ type: 'first' }, { type: 'second' }]);
    assert.equal((await sql('select from pg_publication_tables')).length, 2);
  });

  test('dead letters: parking twice is harmless', async () => {
    await run();
    const park = `insert into outbox_relay_dead_letters (slot_name, seq, xid, code, reason, attempts, "row")
      values ('s', 1, 2, 'too-large', 'r', 1, '{"payload": "x"}') on conflict (seq, xid, slot_name) do nothing`;
    await sql(park);
    await sql(park);
    assert.equal((await sql('select from outbox_relay_dead_letters')).length, 1);
  });

  test('the command: applied steps on stdout, exit code 1 while the publication is missing', async () => {
    const role = await newRole();
    await sql(`create schema app authorization ${role.name}`);
    const env = { DATABASE_URL: role.url, OUTBOX_TABLE: 'app.outbox' };
    const dry = RelayProcess.start({ args: ['migrate', '--dry-run'], env });
    assert.deepEqual(await dry.exit, { code: 0, signal: null });
    assert.match(dry.stdout.join('\n'), /create table if not exists "app"\."outbox"/);

    const refused = RelayProcess.start({ args: ['migrate'], env });
    assert.deepEqual(await refused.exit, { code: 1, signal: null });
    assert.deepEqual(refused.stdout, ['applied 0001_outbox', 'applied 0002_relay', 'applied 0003_emit']);
    assert.match(refused.stderr.join('\n'), /GRANT CREATE ON DATABASE/);

    const complete = RelayProcess.start({ args: ['migrate'], env: { ...env, DATABASE_URL: database.url } });
    assert.deepEqual(await complete.exit, { code: 0, signal: null });
    assert.deepEqual(complete.stdout, ['applied publication']);
  });

  test('--dry-run prints for somebody else what this role may not do', async () => {
    const role = await newRole();
    await sql(`create schema app`);
    await sql(`grant usage on schema app to ${role.name}`);
    const env = { DATABASE_URL: role.url, OUTBOX_TABLE: 'app.outbox' };
    const dry = RelayProcess.start({ args: ['migrate', '--dry-run'], env });
    assert.deepEqual(await dry.exit, { code: 0, signal: null }, dry.output);
    assert.match(dry.stderr.join('\n'), /may not create anything in SCHEMA "app"/);
    await withClient(database.url, async (client) => await client.query(dry.stdout.join('\n')));
    const again = RelayProcess.start({
      args: ['migrate', '--dry-run'],
      env: { ...env, DATABASE_URL: database.url },
    });
    assert.deepEqual(await again.exit, { code: 0, signal: null }, again.output);
    assert.deepEqual(again.stdout.join('').trim(), '');

    await sql(DEBEZIUM);
    await sql(`grant select on outbox to ${role.name}`);
    const adopt = { DATABASE_URL: role.url };
    const dryAdopt = RelayProcess.start({ args: ['migrate', '--adopt', '--dry-run'], env: adopt });
    assert.deepEqual(await dryAdopt.exit, { code: 0, signal: null }, dryAdopt.output);
    assert.match(dryAdopt.stdout.join('\n'), /add column "seq"/);
  });

  test('SOURCE=polling needs no publication, and nobody who may make one', async () => {
    const role = await newRole();
    await sql(`create schema app authorization ${role.name}`);
    const env = { DATABASE_URL: role.url, OUTBOX_TABLE: 'app.outbox', SOURCE: 'polling' };
    const migrated = RelayProcess.start({ args: ['migrate'], env });
    assert.deepEqual(await migrated.exit, { code: 0, signal: null }, migrated.output);
    assert.deepEqual(migrated.stdout, ['applied 0001_outbox', 'applied 0002_relay', 'applied 0003_emit']);
    assert.ok(!migrated.output.includes('warning'), migrated.output);
  });

  test('a migration that fails leaves nothing of itself', async () => {
    await sql(`create function refuse() returns event_trigger language plpgsql as
      $$begin if tg_tag = 'COMMENT' then raise 'no comments'; end if; end$$`);
    await sql('create event trigger refuse on ddl_command_end execute function refuse()');
    await assert.rejects(run(), /no comments/);
    assert.equal((await sql(`select from pg_proc where proname = 'outbox_emit'`)).length, 0);
    await sql('drop event trigger refuse');
    assert.deepEqual((await run()).applied, ALL.slice(2));
  });
});
