import assert from 'node:assert/strict';
import dns from 'node:dns';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Client } from 'pg';
import type { DatabaseConnection, SslMode } from '../../src/config/config.ts';
import { type Certificates, makeCertificates } from '../../src/demo/services/certificates.ts';
import { type PostgresServer, startPostgres } from '../../src/demo/services/postgres.ts';
import { classify } from '../../src/errors/policy.ts';
import { connect, disconnect } from '../../src/postgres/connect.ts';
import { until } from '../support/until.ts';

type LookupAnswer = (error: null, addresses: { address: string; family: number }[]) => void;

describe('connections to PostgreSQL', () => {
  let folder: string;
  let certificates: Certificates;
  let withTls: PostgresServer;
  let plain: PostgresServer;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'connect-test-'));
    certificates = await makeCertificates(folder);
    const hba = [
      'hostssl only_tls all 127.0.0.1/32 trust',
      'hostnossl only_tls all 127.0.0.1/32 reject',
      'hostnossl only_plain all 127.0.0.1/32 trust',
      'hostssl only_plain all 127.0.0.1/32 reject',
      `hostssl all "${certificates.clientName}" 127.0.0.1/32 cert`,
    ];
    // The server's user has to read it, who is not always the one that runs the test.
    chmodSync(folder, 0o755);
    withTls = await startPostgres({
      auth: 'scram-sha-256',
      hba,
      ssl: certificates.server,
      settings: { ssl_ca_file: join(folder, 'ca.crt') },
    });
    plain = await startPostgres();
    await using(connection(withTls), async (client) => {
      await client.query('create database only_tls');
      await client.query('create database only_plain');
      await client.query(`create role "${certificates.clientName}" login`);
      await client.query(`create role styled login password 'secret'`);
      for (const setting of ["timezone = 'Asia/Tokyo'", "datestyle = 'German'", "bytea_output = 'escape'"])
        await client.query(`alter role styled set ${setting}`);
      await client.query(`alter role styled set intervalstyle = 'iso_8601'`);
      await client.query(`alter role styled set extra_float_digits = -5`);
    });
  });

  after(async () => {
    await withTls?.remove();
    await plain?.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  test('sslmode means what it means to libpq', async () => {
    const root = { sslRootCert: certificates.caPem };
    const table: [name: string, target: DatabaseConnection, expected: string][] = [];
    const row = (
      mode: SslMode,
      server: 'tls' | 'plain',
      changes: Partial<DatabaseConnection>,
      expected: string,
    ): void => {
      const target = connection(server === 'tls' ? withTls : plain, { sslMode: mode, ...changes });
      table.push([
        `${mode} ${server} ${Object.entries(changes).map(String).join().slice(0, 60)}`,
        target,
        expected,
      ]);
    };
    row('disable', 'tls', {}, 'plain');
    row('disable', 'tls', { database: 'only_tls' }, 'client-refused');
    row('allow', 'tls', {}, 'plain');
    row('allow', 'tls', { database: 'only_tls' }, 'tls');
    row('prefer', 'tls', {}, 'tls');
    row('prefer', 'plain', {}, 'plain');
    row('prefer', 'tls', { database: 'only_plain' }, 'plain');
    row('prefer', 'tls', { password: 'wrong' }, 'credentials');
    row('require', 'tls', {}, 'tls');
    row('require', 'plain', {}, 'tls-unsupported');
    row('require', 'tls', { database: 'only_plain' }, 'client-refused');
    row('require', 'tls', root, 'tls');
    row('verify-ca', 'tls', root, 'tls');
    row('verify-ca', 'tls', {}, 'tls-root-certificate');
    row('verify-ca', 'plain', root, 'tls-unsupported');
    row('verify-full', 'tls', root, 'tls');
    row('verify-full', 'tls', { ...root, host: 'localhost' }, 'tls');
    row('verify-full', 'tls', {}, 'certificate');
    row('verify-full', 'tls', { sslRootCert: 'system' }, 'certificate');
    row('verify-full', 'plain', root, 'tls-unsupported');
    for (const [name, target, expected] of table) assert.equal(await outcome(target), expected, name);
  });

  test('verifying modes refuse a certificate of another authority, and verify-full another name', async (context) => {
    const strangers = mkdtempSync(join(tmpdir(), 'connect-test-'));
    try {
      const { caPem } = await makeCertificates(strangers);
      for (const sslMode of ['require', 'verify-ca', 'verify-full'] as const)
        assert.equal(
          await outcome(connection(withTls, { sslMode, sslRootCert: caPem })),
          'certificate',
          sslMode,
        );
    } finally {
      rmSync(strangers, { recursive: true, force: true });
    }
    // Only the resolver is ours: the handshake and the certificate are real.
    context.mock.method(dns, 'lookup', (_name: string, _options: object, answer: LookupAnswer) =>
      answer(null, [{ address: '127.0.0.1', family: 4 }]),
    );
    const renamed = { host: 'db.example', sslRootCert: certificates.caPem };
    assert.equal(await outcome(connection(withTls, { ...renamed, sslMode: 'verify-ca' })), 'tls');
    assert.equal(await outcome(connection(withTls, { ...renamed, sslMode: 'verify-full' })), 'certificate');
  });

  test('a client certificate is the identity', async () => {
    const { certPem, keyPem } = certificates.client;
    const target = connection(withTls, {
      user: certificates.clientName,
      password: undefined,
      sslMode: 'verify-full',
      sslRootCert: certificates.caPem,
      sslCert: certPem,
      sslKey: keyPem,
    });
    assert.equal(await outcome(target), 'tls');
    assert.equal(await outcome({ ...target, sslCert: undefined, sslKey: undefined }), 'client-refused');
  });

  test('P2 values come as the same text whatever the role has as defaults', async () => {
    const query = `select 1::int8 as i, true as b, null as n, '{"b":1, "a":12345678901234567890}'::json as j,
      '\\x00ff'::bytea as x, timestamptz '2024-02-03 04:05:06.123456+00' as t, 0.1::float8 + 0.2 as f,
      interval '1 day 2 hours' as d, 'grüße 🐘' as u, array[1,2] as a`;
    const expected = {
      i: '1',
      b: 't',
      n: null,
      j: '{"b":1, "a":12345678901234567890}',
      x: String.raw`\x00ff`,
      t: '2024-02-03 04:05:06.123456+00',
      f: '0.30000000000000004',
      d: '1 day 02:00:00',
      u: 'grüße 🐘',
      a: '{1,2}',
    };
    for (const changes of [{}, { user: 'styled', password: 'secret' }]) {
      const rows = await using(
        connection(withTls, changes),
        async (client) => (await client.query(query)).rows,
      );
      assert.deepEqual({ ...rows[0] }, expected);
    }
  });

  test('statements of the relay have limits of time', async () => {
    await using(connection(plain), async (client) => {
      const settings = [
        'statement_timeout',
        'lock_timeout',
        'idle_in_transaction_session_timeout',
        'idle_session_timeout',
        'jit',
      ];
      const shown = await client.query(
        `select ${settings.map((s) => `current_setting('${s}') as ${s}`).join()}`,
      );
      assert.deepEqual(Object.values(shown.rows[0]), ['1min', '10s', '1min', '0', 'off']);
    });
  });

  test('a server that accepts and says nothing fails at the deadline', async () => {
    const silent = createServer().listen(0, '127.0.0.1');
    await until(() => silent.listening, { what: 'silent server' });
    const { port } = silent.address() as { port: number };
    const startedMs = performance.now();
    try {
      for (const sslMode of ['disable', 'require'] as const) {
        const target = { ...connection(plain), port, sslMode, connectTimeoutMs: 300 };
        assert.equal(await outcome(target), 'timeout', sslMode);
      }
      assert.ok(performance.now() - startedMs < 3000);
    } finally {
      silent.close();
    }
  });

  test('the signal ends an attempt, and a connection', async () => {
    const silent = createServer().listen(0, '127.0.0.1');
    await until(() => silent.listening, { what: 'silent server' });
    const { port } = silent.address() as { port: number };
    const first = new AbortController();
    const attempt = connect(
      { ...connection(plain), port },
      { applicationName: 'test', signal: first.signal },
    );
    first.abort(new Error('drain'));
    await assert.rejects(attempt, /drain/);
    silent.close();

    const second = new AbortController();
    const client = await connect(connection(plain), { applicationName: 'test', signal: second.signal });
    const query = client.query('select pg_sleep(60)');
    second.abort();
    await assert.rejects(query, /Connection terminated/);
  });

  test('a connection that the server ends while idle does not end the process', async () => {
    const client = await connect(connection(plain), {
      applicationName: 'victim',
      signal: new AbortController().signal,
    });
    let ended = false;
    client.on('end', () => (ended = true));
    await using(connection(plain), async (other) => {
      await other.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'victim'`,
      );
    });
    await until(() => ended, { what: 'end of the connection' });
    await disconnect(client);
    await disconnect(client);
  });

  test('P10 refusals have a clear class', async () => {
    assert.equal(await outcome(connection(plain, { database: 'nowhere' })), 'database-missing');
    assert.equal(await outcome(connection(withTls, { password: undefined })), 'credentials');
    assert.equal(await outcome(connection(plain, { port: 1 })), 'refused');
    assert.equal(await outcome(connection(plain, { host: 'no-such-host.invalid' })), 'name-unknown');
  });
});

function connection(server: PostgresServer, changes: Partial<DatabaseConnection> = {}): DatabaseConnection {
  return {
    host: '127.0.0.1',
    port: server.port,
    database: 'postgres',
    user: 'postgres',
    password: 'postgres',
    sslMode: 'prefer',
    sslRootCert: undefined,
    sslCert: undefined,
    sslKey: undefined,
    connectTimeoutMs: 5000,
    ...changes,
  };
}

async function using<T>(target: DatabaseConnection, use: (client: Client) => Promise<T>): Promise<T> {
  const client = await connect(target, { applicationName: 'test', signal: new AbortController().signal });
  try {
    return await use(client);
  } finally {
    await disconnect(client);
  }
}

/** 'tls', 'plain', or the code that the error is classified with. */
async function outcome(target: DatabaseConnection): Promise<string> {
  try {
    return await using(target, async (client) => {
      const result = await client.query('select ssl::text from pg_stat_ssl where pid = pg_backend_pid()');
      return result.rows[0].ssl === 'true' ? 'tls' : 'plain';
    });
  } catch (error) {
    return classify(error).code;
  }
}
