import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client } from 'pg';
import { makeCertificates } from '../../src/demo/services/certificates.ts';
import { ServiceFolder } from '../../src/demo/services/folder.ts';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import type { PostgresOptions, PostgresServer } from '../../src/demo/services/postgres.ts';
import { freshDatabase, withClient } from '../support/database.ts';
import { until } from '../support/until.ts';
import { interruptedProgram, untilNothingIsLeft } from './leftovers.ts';

const servers: PostgresServer[] = [];
after(async () => await Promise.all(servers.map(async (server) => await server.remove())));

async function started(options: PostgresOptions = {}): Promise<PostgresServer> {
  const server = await startPostgres({ settings: { fsync: 'off' }, ...options });
  servers.push(server);
  return server;
}

async function value(url: string, query: string): Promise<unknown> {
  const { rows } = await withClient(url, async (client) => await client.query<{ value: unknown }>(query));
  return rows[0]?.value;
}

test('PostgreSQL service: starts with logical decoding, keeps its data over stops, leaves nothing', async () => {
  const server = await started();
  assert.equal(await value(server.url, `SELECT current_setting('wal_level') AS value`), 'logical');
  await value(server.url, 'CREATE TABLE kept AS SELECT 1 AS value');
  for (const mode of ['fast', 'immediate'] as const) {
    const before = server.pid();
    await server.stop(mode);
    assert.throws(() => server.pid(), /not running/);
    await server.start();
    assert.notEqual(server.pid(), before);
    assert.equal(await value(server.url, 'SELECT value FROM kept'), 1);
  }
  await server.remove();
  await untilNothingIsLeft(server.folder);
});

test('PostgreSQL service: asks for a password when told to', async () => {
  const server = await started({ auth: 'scram-sha-256' });
  assert.equal(await value(server.url, 'SELECT 1 AS value'), 1);
  await assert.rejects(
    value(server.url.replace(':postgres@', ':wrong@'), 'SELECT 1'),
    /password authentication failed/,
  );
});

test('PostgreSQL service: speaks TLS with the certificate given', async () => {
  const folder = new ServiceFolder('certificates');
  const { server: ssl, caPem } = await makeCertificates(folder.path);
  await folder.remove();
  const server = await started({ ssl, hba: ['hostssl all all 127.0.0.1/32 trust'] });
  assert.equal(
    await value(
      `${server.url}?sslmode=no-verify`,
      'SELECT ssl AS value FROM pg_stat_ssl WHERE pid = pg_backend_pid()',
    ),
    true,
  );
  assert.match(caPem, /BEGIN CERTIFICATE/);
});

for (const version of [14, 15, 16, 17] as const) {
  test(`PostgreSQL service: version ${version} is fetched and answers`, async () => {
    const server = await started({ version });
    assert.equal(
      await value(server.url, `SELECT current_setting('server_version_num')::int / 10000 AS value`),
      version,
    );
    await server.remove();
  });
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const) {
  test(`PostgreSQL service: nothing is left of a program that ${signal} ended`, async () => {
    const { folder, processesBefore } = await interruptedProgram('postgres', signal);
    assert.ok(processesBefore > 0, 'the server was running');
    await untilNothingIsLeft(folder);
  });
}

test('fresh database: dropped together with a slot that is in use', async () => {
  const database = await freshDatabase();
  const { name, url } = database;
  await value(url, `SELECT pg_create_logical_replication_slot('${name}', 'test_decoding')`);
  const stream = new Client({ connectionString: `${url}?replication=database` });
  stream.on('error', () => undefined);
  await stream.connect();
  const ended = assert.rejects(
    stream.query(`START_REPLICATION SLOT ${name} LOGICAL 0/0`),
    /terminating connection/,
  );
  const active = `SELECT active AS value FROM pg_replication_slots WHERE slot_name = '${name}'`;
  await until(async () => await value(url, active), { what: 'the slot to be in use' });
  await database.drop();
  await ended;
  await stream.end();
  const server = new URL(url);
  server.pathname = '/postgres';
  const left = `SELECT (SELECT count(*) FROM pg_database WHERE datname = '${name}')
    + (SELECT count(*) FROM pg_replication_slots WHERE database = '${name}') AS value`;
  assert.equal(await value(server.href, left), '0');
});
