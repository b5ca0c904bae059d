import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import type { KafkaConfig, RabbitmqConfig } from '../../../src/config/config.ts';
import { loadChecked, loadConfig, loadDatabasePart } from '../../../src/config/load.ts';
import { RelayError } from '../../../src/errors/errors.ts';

const folder = mkdtempSync(join(tmpdir(), 'load-config-'));
after(() => rmSync(folder, { recursive: true }));

const file = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

const GOOD = { DATABASE_URL: 'postgresql://relay:hush@db/shop', BROKER: 'stdout' };

function kafka(env: Record<string, string>): KafkaConfig {
  const { broker } = loadConfig({ ...GOOD, BROKER: 'kafka', KAFKA_BROKERS: 'k1:9092', ...env });
  assert.ok(broker.kind === 'kafka');
  return broker;
}

function rabbitmq(env: Record<string, string>): RabbitmqConfig {
  const { broker } = loadConfig({ ...GOOD, BROKER: 'rabbitmq', RABBITMQ_URL: 'amqp://u:p@r1', ...env });
  assert.ok(broker.kind === 'rabbitmq');
  return broker;
}

const of = (url: string) => connection({ DATABASE_URL: url });

const connection = (env: Record<string, string>) =>
  loadConfig({ BROKER: 'stdout', ...env }).database.connection();

const warnings = (env: Record<string, string>): string[] => {
  const texts: string[] = [];
  loadConfig({ ...GOOD, ...env }, { warn: (text) => texts.push(text) });
  return texts;
};

describe('layers', () => {
  it('default < file < environment, in both kinds of file', () => {
    for (const path of [
      file(
        'a.json',
        '{"MAX_ATTEMPTS": 7, "HTTP_PORT": 1, "KAFKA_BROKERS": ["k1:9092", "[::1]:9093"], "BROKER": "kafka"}',
      ),
      file(
        'a.env',
        '# comment\nMAX_ATTEMPTS=7\nHTTP_PORT=1\nKAFKA_BROKERS=k1:9092, [::1]:9093,\nBROKER=kafka\n',
      ),
    ]) {
      const env = { DATABASE_URL: GOOD.DATABASE_URL, HTTP_PORT: '2', MAX_ATTEMPTS: '' };
      const { config, settings } = loadChecked(env, { file: path });
      assert.equal(config.maxAttempts, 7, 'an empty variable counts as not set');
      assert.equal(config.http.port, 2);
      assert.equal(config.maxInFlightEvents, 5_000);
      assert.deepEqual(config.broker.kind === 'kafka' && config.broker.brokers, ['k1:9092', '[::1]:9093']);
      assert.deepEqual(
        ['MAX_ATTEMPTS', 'HTTP_PORT', 'LOG_LEVEL'].map((name) => settings.layer(name)),
        ['file', 'environment', 'default'],
      );
    }
  });

  it('the file of --config wins over OUTBOX_RELAY_CONFIG', () => {
    const env = { ...GOOD, OUTBOX_RELAY_CONFIG: file('b.env', 'MAX_ATTEMPTS=3') };
    assert.equal(loadConfig(env).maxAttempts, 3);
    assert.equal(loadConfig(env, { file: file('c.env', 'MAX_ATTEMPTS=4') }).maxAttempts, 4);
  });

  it('a secret in the environment wins over its file variant in the file, and the other way round', () => {
    const password = file('password', 'from-file\n');
    const plainInFile = file('d.env', 'DATABASE_PASSWORD=low\n');
    const fileInFile = file('e.env', `DATABASE_PASSWORD_FILE=${password}\n`);
    const high = loadConfig({ ...GOOD, DATABASE_PASSWORD: 'high' }, { file: fileInFile });
    assert.equal(high.database.connection().password, 'high');
    const other = loadConfig({ ...GOOD, DATABASE_PASSWORD_FILE: password }, { file: plainInFile });
    assert.equal(other.database.connection().password, 'from-file');
  });

  it('the defaults', () => {
    const { database: _database, ...config } = loadConfig(GOOD);
    assert.deepEqual(config, {
      outbox: {
        schema: 'public',
        table: 'outbox',
        numbered: true,
        columns: {
          id: 'id',
          aggregateType: 'aggregatetype',
          aggregateId: 'aggregateid',
          type: 'type',
          payload: 'payload',
          headers: 'headers',
          seq: 'seq',
          xid: 'xid',
          createdAt: 'created_at',
          deliveredAt: 'delivered_at',
        },
      },
      source: 'auto',
      slotName: 'outbox_relay',
      publicationName: 'outbox_relay',
      broker: { kind: 'stdout' },
      route: { topic: 'outbox.event.${aggregatetype}', key: '${aggregateid}' },
      cleanup: 'delete',
      markRetentionMs: undefined,
      partitionRetentionMs: undefined,
      maxAttempts: 5,
      maxInFlightBytes: 64 * 1024 ** 2,
      maxInFlightEvents: 5_000,
      notifyChannel: undefined,
      walRetentionLimitBytes: 4 * 1024 ** 3,
      deletedAtOnce: undefined,
      slotFailover: false,
      maxEventBytes: 16 * 1024 ** 2,
      topicGraceMs: 60_000,
      http: { host: '0.0.0.0', port: 9464 },
      log: { level: 'info', format: 'json' },
      shutdownTimeoutMs: 25_000,
    });
    assert.equal(loadConfig(GOOD, { terminal: true }).log.format, 'pretty');
    assert.equal(loadConfig({ ...GOOD, LOG_FORMAT: 'json' }, { terminal: true }).log.format, 'json');
  });

  it('migrate needs no broker and is not stopped by the settings of one', () => {
    const part = loadDatabasePart({
      DATABASE_URL: GOOD.DATABASE_URL,
      OUTBOX_TABLE: '"My App".Outbox',
      RABBITMQ_WINDOW: 'x',
      ROUTE_TOPIC: '${',
    });
    assert.deepEqual([part.outbox.schema, part.outbox.table], ['My App', 'outbox']);
  });

  it('the default addresses are made of the columns, whatever their names', () => {
    const mapped = { OUTBOX_AGGREGATE_TYPE_COLUMN: 'kind', OUTBOX_AGGREGATE_ID_COLUMN: '"entityId"' };
    assert.deepEqual(loadConfig({ ...GOOD, ...mapped }).route, {
      topic: 'outbox.event.${kind}',
      key: '${entityId}',
    });
    const own = { ROUTE_TOPIC: 'outbox.event.${aggregatetype}', ROUTE_KEY: '${tenant}' };
    assert.deepEqual(loadConfig({ ...GOOD, ...mapped, ...own }).route, {
      topic: own.ROUTE_TOPIC,
      key: own.ROUTE_KEY,
    });
  });

  it('another broker’s variables are not ours to judge', () => {
    assert.equal(loadConfig({ ...GOOD, RABBITMQ_URL: 'tcp://10.0.0.1:5672' }).broker.kind, 'stdout');
  });
});

describe('database', () => {
  it('takes what the URL leaves open from the PG* variables', () => {
    const env = { PGUSER: 'pg', PGPASSWORD: 'pw', PGDATABASE: 'pgdb', PGPORT: '6000', PGSSLMODE: 'require' };
    const expected = {
      host: 'db',
      port: 6000,
      user: 'pg',
      password: 'pw',
      database: 'pgdb',
      sslMode: 'require',
    };
    const none = { sslRootCert: undefined, sslCert: undefined, sslKey: undefined };
    assert.deepEqual(connection({ ...env, DATABASE_URL: 'postgres://db' }), {
      ...expected,
      ...none,
      connectTimeoutMs: 10_000,
    });
    assert.deepEqual(connection({ ...env, PGHOST: 'db' }), {
      ...expected,
      ...none,
      connectTimeoutMs: 10_000,
    });
    const full = connection({
      ...env,
      DATABASE_URL: 'postgres://u:p@h:7/d?sslmode=disable&connect_timeout=3',
    });
    assert.deepEqual(full, {
      ...none,
      host: 'h',
      port: 7,
      user: 'u',
      password: 'p',
      database: 'd',
      sslMode: 'disable',
      connectTimeoutMs: 3000,
    });
  });

  it('reads the odd forms of libpq URLs', () => {
    assert.equal(of('postgresql://u:a%40b%25c@h/d').password, 'a@b%c');
    assert.equal(of('postgresql://u:a@b@h/d').password, 'a@b');
    assert.equal(of('postgresql://u@[::1]:5/d').host, '::1');
    assert.equal(of('postgresql://u@%2Fvar%2Frun/d').host, '/var/run');
    assert.equal(of('postgresql://u:p@/d?host=/cloudsql/x').host, '/cloudsql/x');
    assert.equal(of('postgresql:///d?user=u&host=/tmp').host, '/tmp');
    assert.equal(of('postgresql://u@h').database, 'u');
    assert.equal(of('postgresql://u@h/d%C3%A9').database, 'dé');
    assert.equal(of('postgresql://u@h/d').sslMode, 'prefer');
    assert.equal(of('postgresql://u@h/d?ssl=true').sslMode, 'require');
    assert.equal(of('postgresql://u@h/d?sslrootcert=system').sslMode, 'verify-full');
  });

  it('DATABASE_PASSWORD replaces the password of the URL and of PGPASSWORD', () => {
    const env = { DATABASE_URL: 'postgres://u:p@h/d', PGPASSWORD: 'x', DATABASE_PASSWORD: 'new' };
    assert.equal(connection(env).password, 'new');
  });

  it('P10 a secret file is read again at every connect, without its line end', () => {
    const path = file('rotated', 'first\n');
    const { database } = loadConfig({ ...GOOD, DATABASE_PASSWORD_FILE: path });
    assert.equal(database.connection().password, 'first');
    writeFileSync(path, 'second\r\n');
    assert.equal(database.connection().password, 'second');
    rmSync(path);
    assert.throws(
      () => database.connection(),
      (error) =>
        error instanceof RelayError && error.consequence === 'stop' && error.code === 'secret-unreadable',
    );
  });

  it('certificates are given as texts, read at every connect', () => {
    const path = file('ca.pem', '-----BEGIN CERTIFICATE-----\none');
    const { database } = loadConfig({ ...GOOD, PGSSLROOTCERT: path, PGSSLMODE: 'verify-ca' });
    writeFileSync(path, '-----BEGIN CERTIFICATE-----\ntwo');
    assert.equal(database.connection().sslRootCert, '-----BEGIN CERTIFICATE-----\ntwo');
  });
});

describe('brokers', () => {
  it('Kafka: defaults, TLS by its settings alone, SASL', () => {
    assert.deepEqual(kafka({}), {
      kind: 'kafka',
      brokers: ['k1:9092'],
      clientId: 'outbox-relay',
      client: 'kafkajs',
      compression: 'none',
      maxBatchBytes: 900_000,
      requestTimeoutMs: 30_000,
      ssl: undefined,
      sasl: undefined,
    });
    const ca = file('kafka-ca.pem', '-----BEGIN CERTIFICATE-----\nx');
    const { ssl, sasl } = kafka({
      KAFKA_SSL_CA_FILE: ca,
      KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512',
      KAFKA_SASL_USERNAME: 'u',
      KAFKA_SASL_PASSWORD: 'p',
    });
    assert.equal(ssl?.ca?.(), '-----BEGIN CERTIFICATE-----\nx');
    assert.equal(ssl?.rejectUnauthorized, true);
    assert.ok(sasl?.mechanism === 'scram-sha-512');
    assert.deepEqual([sasl.username, sasl.password()], ['u', 'p']);
    for (const [client, username] of [
      ['kafkajs', 'a,b,c'],
      ['platformatic', 'a,b'],
    ] as const) {
      const named = { KAFKA_SASL_USERNAME: username, KAFKA_SASL_PASSWORD: 'p', KAFKA_CLIENT: client };
      const login = kafka({ KAFKA_SASL_MECHANISM: 'scram-sha-512', ...named }).sasl;
      assert.equal(login?.mechanism === 'scram-sha-512' && login.username, username);
    }
    assert.equal(kafka({ KAFKA_SSL_ENABLED: 'true' }).ssl?.rejectUnauthorized, true);
    assert.equal(kafka({ KAFKA_SSL_VERIFY: 'false' }).ssl?.rejectUnauthorized, false);
    const bearer = kafka({
      KAFKA_SASL_MECHANISM: 'oauthbearer',
      KAFKA_SASL_TOKEN_FILE: file('token', 'abc\n'),
    }).sasl;
    assert.equal(bearer?.mechanism === 'oauthbearer' && bearer.token(), 'abc');
  });

  it('RabbitMQ: defaults, credentials put into every URL', () => {
    const { urls, ...rest } = rabbitmq({
      RABBITMQ_URL: 'amqp://u:p@r1:5673/shop?heartbeat=5, amqp://r2/%2F',
    });
    assert.deepEqual(rest, {
      kind: 'rabbitmq',
      exchange: undefined,
      exchangeIsConstant: false,
      exchangeType: 'topic',
      declare: true,
      routingKey: undefined,
      window: 1000,
      confirmTimeoutMs: 30_000,
      tls: undefined,
      auth: 'plain',
    });
    assert.deepEqual(urls(), ['amqp://u:p@r1:5673/shop?heartbeat=5', 'amqp://r2/%2F']);
    const path = file('rabbit-password', 'a%41@:/\n');
    const replaced = rabbitmq({
      RABBITMQ_URL: 'amqp://u:p@r1/v,amqp://r2',
      RABBITMQ_USERNAME: 'n',
      RABBITMQ_PASSWORD_FILE: path,
    });
    assert.deepEqual(replaced.urls(), ['amqp://n:a%2541%40%3A%2F@r1/v', 'amqp://n:a%2541%40%3A%2F@r2']);
    writeFileSync(path, 'new');
    assert.equal(replaced.urls()[1], 'amqp://n:new@r2');
  });

  it('RabbitMQ: EXTERNAL over amqps with a client certificate', () => {
    const pem = file('client.pem', '-----BEGIN X-----\n');
    const external = rabbitmq({
      RABBITMQ_URL: 'amqps://r1',
      RABBITMQ_AUTH: 'EXTERNAL',
      RABBITMQ_SSL_CERT_FILE: pem,
      RABBITMQ_SSL_KEY_FILE: pem,
    });
    assert.equal(external.auth, 'external');
    assert.equal(external.tls?.cert?.(), '-----BEGIN X-----');
  });
});

describe('warnings', () => {
  it('an unknown variable with one of our prefixes gets the nearest known name', () => {
    assert.deepEqual(
      warnings({
        KAFKA_BROKER: 'k:1',
        MAX_ATEMPTS: '3',
        NOTIFY_CHANEL: 'c',
        HTTP_PROXY: 'p',
        SOMETHING: 'else',
      }),
      [
        'KAFKA_BROKER: no such variable; the nearest is KAFKA_BROKERS',
        'MAX_ATEMPTS: no such variable; the nearest is MAX_ATTEMPTS',
        'NOTIFY_CHANEL: no such variable; the nearest is NOTIFY_CHANNEL',
      ],
    );
  });

  it("a variable of libpq's that has no effect here is named", () => {
    const [warning, ...others] = warnings({ PGPASSFILE: '/secret', PGSERVICE: '', PGUSER: 'relay' });
    assert.match(warning ?? '', /^PGPASSFILE: not used here; .*DATABASE_PASSWORD_FILE/);
    assert.deepEqual(others, []);
  });

  it('what Kubernetes sets for a Service is ignored', () => {
    const links = {
      KAFKA_PORT: 'tcp://10.0.0.1:9092',
      KAFKA_SERVICE_HOST: '10.0.0.1',
      KAFKA_SERVICE_PORT: '9092',
      KAFKA_SERVICE_PORT_CLIENT: '9092',
      KAFKA_PORT_9092_TCP: 'tcp://10.0.0.1:9092',
      KAFKA_PORT_9092_TCP_ADDR: '10.0.0.1',
      RABBITMQ_MAIN_PORT_5672_TCP_PROTO: 'tcp',
    };
    assert.deepEqual(warnings(links), []);
    assert.equal(warnings({ KAFKA_PORT: '9092' }).length, 1);
  });

  it('a secret in the clear, a URL parameter without effect', () => {
    const env = {
      BROKER: 'kafka',
      KAFKA_BROKERS: 'k:1',
      KAFKA_SASL_MECHANISM: 'plain',
      KAFKA_SASL_USERNAME: 'u',
      KAFKA_SASL_PASSWORD: 'p',
    };
    assert.match(warnings(env).join(), /without TLS "plain" sends its secret in the clear/);
    assert.match(
      warnings({ DATABASE_URL: 'postgres://u@h/d?pgbouncer=true' }).join(),
      /"pgbouncer" is not used/,
    );
  });
});
