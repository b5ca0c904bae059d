import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client, type ClientConfig } from 'pg';
import { type PostgresServer, startPostgres } from '../../src/demo/services/postgres.ts';
import { type Verdict, classify } from '../../src/errors/policy.ts';
import { withClient } from '../support/database.ts';
import { until } from '../support/until.ts';

const create = (name: string): string => `select pg_create_logical_replication_slot('${name}', 'pgoutput')`;

const stream = (name: string): string =>
  `START_REPLICATION SLOT ${name} LOGICAL 0/0 (proto_version '1', publication_names 'p')`;

/** The policy's patterns against the words of a real server: a message that changes with a version shows here. */
describe("PostgreSQL's own errors are classified", () => {
  let server: PostgresServer;
  let replica: PostgresServer;

  before(async () => {
    server = await startPostgres({
      settings: {
        max_replication_slots: '2',
        max_slot_wal_keep_size: '1MB',
        min_wal_size: '32MB',
        max_wal_size: '32MB',
      },
    });
    replica = await startPostgres({ settings: { wal_level: 'replica' } });
    await withClient(server.url, async (client) => {
      await client.query('create table filler (a int)');
      await client.query(`create role weak login; create role walker login replication`);
    });
  });

  after(async () => {
    await server?.remove();
    await replica?.remove();
  });

  async function verdict(
    text: string,
    changes: { url?: string; user?: string; replication?: string } = {},
  ): Promise<Verdict> {
    const url = new URL(changes.url ?? server.url);
    if (changes.user !== undefined) url.username = changes.user;
    const { replication } = changes;
    // The driver knows `replication`, its types don't.
    const config = {
      connectionString: url.href,
      ...(replication !== undefined && { replication }),
    } as ClientConfig;
    const client = new Client(config);
    client.on('error', () => undefined);
    try {
      await client.connect();
      for (const statement of text.split(';;')) await client.query(statement);
    } catch (error) {
      return classify(error);
    } finally {
      await client.end().catch(() => undefined);
    }
    return assert.fail(`no error: ${text}`);
  }

  async function code(...parameters: Parameters<typeof verdict>): Promise<string> {
    const { consequence, code: name } = await verdict(...parameters);
    return `${consequence} ${name}`;
  }

  test('objects, privileges, limits', async () => {
    assert.equal(await code('select * from nowhere'), 'stop table-missing');
    assert.equal(await code('select * from nowhere.outbox'), 'stop table-missing');
    assert.equal(await code('select seq from filler'), 'stop column-missing');
    assert.equal(await code('select * from filler', { user: 'weak' }), 'stop privilege');
    assert.equal(
      await code(`set default_transaction_read_only = on;;insert into filler values (1)`),
      'retry read-only',
    );
    assert.equal(await code(`set statement_timeout = 1;;select pg_sleep(9)`), 'retry statement-timeout');
    assert.equal(await code('alter publication nope add table filler'), 'stop publication-missing');
    assert.equal(await code('select pg_terminate_backend(pg_backend_pid())'), 'retry server-stopping');
    await withClient(server.url, async (idle) => {
      let ended: unknown;
      idle.on('error', (error) => (ended ??= error));
      await idle.query('set idle_in_transaction_session_timeout = 1');
      await idle.query('begin');
      await until(() => ended !== undefined, { what: 'the idle session to be ended' });
      assert.equal(classify(ended).code, 'idle-in-transaction');
    });
    await withClient(server.url, async (holder) => {
      await holder.query('begin; lock table filler');
      assert.equal(await code(`set lock_timeout = 1;;select * from filler`), 'retry conflict');
      await holder.query('rollback');
    });
  });

  test('replication without the privilege names the statement that grants it', async () => {
    const refused = await verdict('IDENTIFY_SYSTEM', { user: 'weak', replication: 'database' });
    assert.deepEqual([refused.consequence, refused.code], ['stop', 'privilege']);
    assert.match(refused.advice, /ALTER ROLE .* REPLICATION/);
    const slot = await verdict(`select pg_create_logical_replication_slot('s', 'pgoutput')`, {
      user: 'weak',
    });
    assert.match(slot.advice, /ALTER ROLE .* REPLICATION/);
  });

  test('wal_level, missing, surplus and busy slots', async () => {
    assert.equal(await code(create('a'), { url: replica.url }), 'stop wal-level');
    const replication = 'database';
    assert.equal(await code(stream('nope'), { replication }), 'retry slot-missing');
    await withClient(server.url, async (client) => {
      await client.query('create publication p for table filler');
      await client.query(create('a'));
      await client.query(create('b'));
    });
    assert.equal(await code(create('a')), 'retry slot-exists');
    assert.equal(await code(create('c')), 'retry no-free-slot');

    const reader = new Client({ connectionString: server.url, ...({ replication } as ClientConfig) });
    reader.on('error', () => undefined);
    await reader.connect();
    const reading = reader.query(stream('a')).catch(() => undefined);
    await withClient(server.url, async (client) => {
      const active = `select active_pid from pg_replication_slots where slot_name = 'a' and active`;
      await until(async () => (await client.query(active)).rows.length === 1, {
        what: 'the slot to be active',
      });
      assert.equal(await code(stream('a'), { replication }), 'retry slot-active');
      await client.query(`select pg_terminate_backend(active_pid) from (${active}) s`);
    });
    await reading;
    await reader.end().catch(() => undefined);
  });

  test('P1 a slot whose WAL is gone is lost, in the stream and in SQL', async () => {
    await withClient(server.url, async (client) => {
      await client.query(
        `select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active`,
      );
      await client.query(`select pg_create_logical_replication_slot('old', 'pgoutput')`);
      const lost = `select from pg_replication_slots where slot_name = 'old' and wal_status = 'lost'`;
      await until(
        async () => {
          await client.query('insert into filler values (1)');
          await client.query('select pg_switch_wal()');
          await client.query('checkpoint');
          return (await client.query(lost)).rows.length === 1;
        },
        { what: 'the slot to be lost', timeoutMs: 60_000 },
      );
    });
    const options = `(proto_version '1', publication_names 'p')`;
    assert.equal(
      await code(`START_REPLICATION SLOT old LOGICAL 0/0 ${options}`, { replication: 'database' }),
      'retry slot-lost',
    );
    const read = `select pg_logical_slot_get_binary_changes('old', null, null, 'proto_version', '1', 'publication_names', 'p')`;
    assert.equal(await code(read), 'retry slot-lost');
  });
});
