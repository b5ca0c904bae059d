import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import { withClient } from '../support/database.ts';
import { openOutbox, type Outbox } from '../support/outbox.ts';
import { RelayProcess } from '../support/relay-process.ts';

/** Asks for passwords, unlike the shared one. */
let server: PostgresServer;
let outbox: Outbox;

before(async () => {
  server = await startPostgres({ auth: 'scram-sha-256' });
  await withClient(server.url, async (client) => {
    await client.query(
      `create role plain login password 'plain'; create role streamer login replication password 's'`,
    );
  });
});
after(async () => await server.remove());
beforeEach(async () => {
  outbox = await openOutbox(server.url);
});
afterEach(async () => await outbox.drop());

function as(user: string, password: string): Record<string, string> {
  const url = new URL(outbox.url);
  url.username = user;
  url.password = password;
  return { DATABASE_URL: url.href };
}

/** A role that lacks these is told so before anything else is looked at. */
async function grantTables(role: string): Promise<void> {
  await outbox.sql(`grant select, insert, update, delete on all tables in schema public to ${role}`);
}

/** The relay ends at once, with the exit code for a bad configuration and one line that holds all of these. */
async function assertRefused(
  env: Readonly<Record<string, string>>,
  ...texts: readonly (string | RegExp)[]
): Promise<void> {
  const relay = RelayProcess.start({ env: { ...outbox.env, BROKER: 'stdout', ...env } });
  const timer = setTimeout(() => relay.kill('SIGKILL'), 20_000);
  const exit = await relay.exit;
  clearTimeout(timer);
  assert.deepEqual(exit, { code: 78, signal: null }, relay.output);
  const line = relay.stderr.at(-1) ?? '';
  for (const text of texts) {
    assert.ok(
      typeof text === 'string' ? line.includes(text) : text.test(line),
      `${String(text)} not in: ${line}`,
    );
  }
  assert.ok(!relay.output.includes('hush'), 'a password was printed');
}

describe('P10 a database that is set up wrongly ends the process at once, with the remedy', () => {
  test('wrong password', async () => {
    await assertRefused(
      as('plain', 'hush'),
      'password authentication failed',
      'DATABASE_URL',
      '[credentials]',
    );
  });

  test('no password', async () => {
    await assertRefused(as('plain', ''), '[credentials]', 'secret file');
  });

  test('wrong database', async () => {
    const url = new URL(outbox.url);
    url.pathname = '/nowhere';
    await assertRefused(
      { DATABASE_URL: url.href },
      '"nowhere" does not exist',
      'correct its name in DATABASE_URL',
    );
  });

  test('missing table', async () => {
    await assertRefused(
      { OUTBOX_TABLE: 'public.nothing' },
      'table public.nothing does not exist',
      'migrate',
      'OUTBOX_TABLE',
    );
  });

  test('a table that was made by hand, without migrate', async () => {
    await outbox.sql('drop table outbox_relay_progress');
    await assertRefused({}, 'outbox_relay_progress', 'outbox-relay migrate');
  });

  test('missing column', async () => {
    await outbox.sql('alter table outbox drop column type');
    await assertRefused({}, 'lacks type', 'OUTBOX_*_COLUMN', 'migrate --adopt');
  });

  test('a column of another type than statements compute with', async () => {
    await outbox.sql('alter table outbox rename column created_at to at');
    await outbox.sql('alter table outbox add column created_at bigint');
    await assertRefused({}, '[column-type]', 'created_at is bigint', 'timestamp with time zone');
  });

  test('missing REPLICATION privilege', async () => {
    await grantTables('plain');
    await assertRefused(
      { ...as('plain', 'plain'), SOURCE: 'streaming' },
      '[replication-privilege]',
      'ALTER ROLE "plain" REPLICATION;',
    );
  });

  test('publication missing, and no privilege to make it', async () => {
    await grantTables('streamer');
    await outbox.sql('drop publication outbox_relay');
    await assertRefused(
      { ...as('streamer', 's'), SOURCE: 'streaming' },
      'create publication "outbox_relay" for table "public"."outbox"',
      `GRANT CREATE ON DATABASE "${outbox.name}" TO "streamer";`,
    );
  });

  test('missing privilege on a table', async () => {
    await assertRefused(
      as('streamer', 's'),
      'permission denied for table',
      '[privilege]',
      'Grant what the message names',
    );
  });

  test('a policy that could hide rows from the relay', async () => {
    await grantTables('streamer');
    await outbox.sql('alter table outbox enable row level security');
    await outbox.sql('create policy mine on outbox for select to streamer using (aggregateid is null)');
    for (const source of ['streaming', 'polling', 'auto'])
      await assertRefused(
        { ...as('streamer', 's'), SOURCE: source },
        'row-level security',
        '[row-security]',
        'BYPASSRLS',
      );
  });

  test('a template that names a column which is not there', async () => {
    await assertRefused({ ROUTE_KEY: '${custmer_id}' }, '[column-missing]', 'lacks custmer_id', 'ROUTE_KEY');
  });

  test('a slot of the same name that belongs to somebody else', async () => {
    await outbox.sql('select pg_create_physical_replication_slot($1)', [outbox.name]);
    await assertRefused({}, '[slot-foreign]', 'physical slot', 'SLOT_NAME');
    const [slot] = await outbox.sql('select slot_type from pg_replication_slots where slot_name = $1', [
      outbox.name,
    ]);
    assert.equal(slot?.['slot_type'], 'physical', 'it was not touched');
    await outbox.sql('select pg_drop_replication_slot($1)', [outbox.name]);
  });

  test('the port for metrics is taken', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    try {
      await assertRefused({ HTTP_PORT: String(port) }, `127.0.0.1:${port}`, '[http-address]', 'HTTP_PORT');
    } finally {
      other.close();
    }
  });

  test('several mistakes are all named at once', async () => {
    const relay = RelayProcess.start({
      env: { ...outbox.env, BROKER: 'pigeon', MAX_ATTEMPTS: 'none', KAFKA_BROKER: 'x' },
    });
    assert.equal((await relay.exit).code, 78, relay.output);
    assert.match(relay.output, /BROKER: .*kafka, rabbitmq or stdout/);
    assert.match(relay.output, /MAX_ATTEMPTS: /);
    assert.match(relay.output, /KAFKA_BROKER.*KAFKA_BROKERS/);
  });
});

test('P10 wal_level=replica with SOURCE=streaming ends the process at once, with the remedy', async () => {
  const replica = await startPostgres({ settings: { wal_level: 'replica' } });
  const there = await openOutbox(replica.url);
  try {
    await assertRefused(
      { ...there.env, SOURCE: 'streaming' },
      'wal_level is replica',
      'ALTER SYSTEM SET wal_level = logical',
    );
  } finally {
    await there.drop();
    await replica.remove();
  }
});
