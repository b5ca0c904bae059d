import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { loadConfig } from '../../../src/config/load.ts';
import { ConfigError } from '../../../src/errors/errors.ts';

const folder = mkdtempSync(join(tmpdir(), 'bad-input-'));
after(() => rmSync(folder, { recursive: true }));

const file = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};
const PEM = file('any.pem', '-----BEGIN CERTIFICATE-----\nx\n');
const EMPTY = file('empty', '\n');
const NOWHERE = join(folder, 'nowhere');

const GOOD = { DATABASE_URL: 'postgresql://relay:hush@db/shop', BROKER: 'stdout' };
const KAFKA = { BROKER: 'kafka', KAFKA_BROKERS: 'k1:9092' };
const SCRAM_COMMAS = {
  ...KAFKA,
  KAFKA_SASL_MECHANISM: 'scram-sha-512',
  KAFKA_SASL_USERNAME: 'a,b,c',
  KAFKA_SASL_PASSWORD: 'p',
};
const RABBIT = { BROKER: 'rabbitmq', RABBITMQ_URL: 'amqp://u:hush@r1' };

const SIZE = 'such as 900000, 64MiB or 4GiB';
const IDENTIFIER =
  'expected one SQL identifier of at most 63 bytes; write "Name" in double quotes to keep capital letters';
const TABLE = 'expected table or schema.table, as in SQL; a part with other characters goes in double quotes';
const PG_URL = 'expected postgresql://user:password@host:port/database';
const MISPLACED =
  'has an "@" behind the host; special characters are written %XX (@ is %40, / is %2F, ? is %3F, # is %23)';
const HEARTBEAT =
  'heartbeat: expected seconds as a whole number of at least 1; without it the relay takes 10';
const AMQP_URL = 'expected amqp://user:password@host:port/vhost or amqps://…, comma-separated';
const TOPIC = 'expected a legal Kafka topic: 1 to 249 letters, digits, ".", "_" and "-"';
const LATER =
  'this release knows only "park" (the event goes to the dead letters, later events of its key flow on)';
const SECRET_ADVICE = 'set either DATABASE_PASSWORD or DATABASE_PASSWORD_FILE';

/** Environment on top of GOOD (an empty text removes a variable) → every problem, as "NAME: message". */
const TABLE_OF_BAD_INPUT: readonly (readonly [Record<string, string>, ...string[]])[] = [
  [
    { DATABASE_URL: '' },
    `DATABASE_URL: required: postgresql://user:password@host:port/database, or PGHOST, PGUSER and PGDATABASE`,
  ],
  [{ DATABASE_URL: 'host=db user=relay' }, `DATABASE_URL: ${PG_URL}`],
  [{ DATABASE_URL: 'mysql://db/shop' }, `DATABASE_URL: ${PG_URL}`],
  [{ DATABASE_URL: 'postgres://u:hush/hush@db/shop' }, `DATABASE_URL: ${MISPLACED}`],
  [{ DATABASE_URL: 'postgresql://u:12?hush@h/db' }, `DATABASE_URL: ${MISPLACED}`],
  [{ DATABASE_URL: 'postgresql://u:12#hush@h/db' }, `DATABASE_URL: ${MISPLACED}`],
  [{ DATABASE_URL: 'postgresql://u:12@b/hush@h/db' }, `DATABASE_URL: ${MISPLACED}`],
  [{ DATABASE_URL: 'postgres://u:100%@db/shop' }, 'DATABASE_URL: a % in the password must be written %25'],
  [
    { DATABASE_URL: 'postgres://u@db1,db2/shop' },
    'DATABASE_URL: names several hosts; the relay connects to one, give the address of the primary',
  ],
  [
    { DATABASE_URL: 'postgres://u@db/shop?sslmode=on' },
    'DATABASE_URL: sslmode: expected disable, allow, prefer, require, verify-ca or verify-full, got "on"',
  ],
  [
    { DATABASE_URL: 'postgres://u@db:0/shop' },
    'DATABASE_URL: port: expected a whole number from 1 to 65535, got "0"',
  ],
  [
    { DATABASE_PASSWORD: 'a', DATABASE_PASSWORD_FILE: EMPTY },
    `DATABASE_PASSWORD: is given twice: ${SECRET_ADVICE}`,
  ],
  [{ DATABASE_PASSWORD_FILE: NOWHERE }, `DATABASE_PASSWORD_FILE: can't read the file ${NOWHERE} (ENOENT)`],
  [{ DATABASE_PASSWORD_FILE: EMPTY }, `DATABASE_PASSWORD_FILE: the file ${EMPTY} is empty`],
  [{ DATABASE_URL: '', DATABASE_URL_FILE: PEM }, `DATABASE_URL_FILE: ${PG_URL}`],
  [{ PGPORT: 'http' }, 'PGPORT: expected a whole number from 1 to 65535, got "http"'],
  [
    { PGSSLMODE: 'yes' },
    'PGSSLMODE: expected disable, allow, prefer, require, verify-ca or verify-full, got "yes"',
  ],
  [
    { PGSSLMODE: 'verify-ca' },
    'PGSSLROOTCERT: sslmode=verify-ca needs the file of your own authority here; or use sslmode=verify-full',
  ],
  [
    { PGSSLROOTCERT: 'system', PGSSLMODE: 'require' },
    'PGSSLROOTCERT: "system" needs sslmode=verify-full, got require',
  ],
  [{ PGSSLROOTCERT: NOWHERE }, `PGSSLROOTCERT: can't read the file ${NOWHERE} (ENOENT)`],
  [{ PGSSLCERT: PEM }, 'PGSSLKEY: required with a client certificate (PGSSLCERT)'],
  [{ PGSSLKEY: PEM }, 'PGSSLCERT: required with the key of a client certificate (PGSSLKEY)'],
  [{ OUTBOX_TABLE: 'a.b.c' }, `OUTBOX_TABLE: ${TABLE}, got "a.b.c"`],
  [{ OUTBOX_TABLE: 'my-outbox' }, `OUTBOX_TABLE: ${TABLE}, got "my-outbox"`],
  [{ OUTBOX_TABLE: '"open' }, `OUTBOX_TABLE: ${TABLE}, got "\\"open"`],
  [{ OUTBOX_TABLE: 'public.' }, `OUTBOX_TABLE: ${TABLE}, got "public."`],
  [{ OUTBOX_ID_COLUMN: 'event id' }, `OUTBOX_ID_COLUMN: ${IDENTIFIER}, got "event id"`],
  [{ OUTBOX_SEQ_COLUMN: 's'.repeat(64) }, `OUTBOX_SEQ_COLUMN: ${IDENTIFIER}, got "${'s'.repeat(64)}"`],
  [
    { SOURCE: 'polling', CLEANUP: 'none' },
    'CLEANUP: none leaves delivered rows as they are, and SOURCE=polling could not tell them from others; expected delete or mark',
  ],
  [{ SOURCE: 'trigger' }, 'SOURCE: expected auto, streaming or polling, got "trigger"'],
  [
    { SLOT_NAME: 'Outbox-Relay' },
    'SLOT_NAME: expected 1 to 63 lower-case letters, digits and underscores, got "Outbox-Relay"',
  ],
  [{ PUBLICATION_NAME: 'a b' }, `PUBLICATION_NAME: ${IDENTIFIER}, got "a b"`],
  [{ CLEANUP: 'truncate' }, 'CLEANUP: expected delete, mark or none, got "truncate"'],
  [{ MARK_RETENTION: '7d' }, 'MARK_RETENTION: only with CLEANUP=mark, got CLEANUP=delete'],
  [
    { CLEANUP: 'mark', MARK_RETENTION: '604800' },
    'MARK_RETENTION: expected a time of at least 1s with its unit, such as 90s, 15m, 12h or 7d, got "604800"',
  ],
  [
    { PARTITION_RETENTION: '0s' },
    'PARTITION_RETENTION: expected a time of at least 1s with its unit, such as 90s, 15m, 12h or 7d, got "0s"',
  ],
  [{ BROKER: '' }, 'BROKER: required: kafka, rabbitmq or stdout'],
  [{ BROKER: 'nats' }, 'BROKER: expected kafka, rabbitmq or stdout, got "nats"'],
  [{ BROKER: 'kafka' }, 'KAFKA_BROKERS: required with BROKER=kafka: host:port, comma-separated'],
  [
    { ...KAFKA, KAFKA_BROKERS: 'k1:9092,k2' },
    'KAFKA_BROKERS: expected host:port, comma-separated; "k2" is not, got "k1:9092,k2"',
  ],
  [
    { ...KAFKA, KAFKA_BROKERS: 'SASL_SSL://k1:9092' },
    'KAFKA_BROKERS: expected host:port, comma-separated; "SASL_SSL://k1:9092" is not, got "SASL_SSL://k1:9092"',
  ],
  [{ ...KAFKA, KAFKA_COMPRESSION: 'zip' }, 'KAFKA_COMPRESSION: expected none or gzip, got "zip"'],
  [
    { ...KAFKA, KAFKA_MAX_BATCH_BYTES: '1MB' },
    `KAFKA_MAX_BATCH_BYTES: expected a size in bytes from 1024 to 1073741824, ${SIZE}, got "1MB"`,
  ],
  [
    { ...KAFKA, KAFKA_REQUEST_TIMEOUT_MS: '30s' },
    'KAFKA_REQUEST_TIMEOUT_MS: expected milliseconds as a whole number from 1000 to 600000, got "30s"',
  ],
  [{ ...KAFKA, KAFKA_SSL_ENABLED: 'yes' }, 'KAFKA_SSL_ENABLED: expected true or false, got "yes"'],
  [
    { ...KAFKA, KAFKA_SSL_ENABLED: 'false', KAFKA_SSL_CA_FILE: PEM },
    'KAFKA_SSL_ENABLED: is false, but KAFKA_SSL_CA would need TLS',
  ],
  [
    { ...KAFKA, KAFKA_SSL_CERT_FILE: PEM },
    'KAFKA_SSL_KEY: required with KAFKA_SSL_CERT (or KAFKA_SSL_KEY_FILE)',
  ],
  [
    { ...KAFKA, KAFKA_SSL_CA: PEM },
    'KAFKA_SSL_CA: expected a PEM text (-----BEGIN …); for a path use the _FILE variable',
  ],
  [
    { ...KAFKA, KAFKA_SASL_MECHANISM: 'GSSAPI' },
    'KAFKA_SASL_MECHANISM: expected plain, scram-sha-256, scram-sha-512 or oauthbearer, got "GSSAPI"',
  ],
  [
    { ...KAFKA, KAFKA_SASL_MECHANISM: 'PLAIN' },
    'KAFKA_SASL_USERNAME: required with KAFKA_SASL_MECHANISM=plain',
    'KAFKA_SASL_PASSWORD: required with KAFKA_SASL_MECHANISM=plain (or KAFKA_SASL_PASSWORD_FILE)',
  ],
  [
    { ...SCRAM_COMMAS, KAFKA_CLIENT: 'platformatic' },
    "KAFKA_SASL_USERNAME: with KAFKA_CLIENT=platformatic, scram-sha-512 can't log in a user with several commas; use kafkajs",
  ],
  [
    { ...KAFKA, KAFKA_SASL_USERNAME: 'u' },
    'KAFKA_SASL_MECHANISM: required with KAFKA_SASL_USERNAME: plain, scram-sha-256, scram-sha-512 or oauthbearer',
  ],
  [
    { ...KAFKA, KAFKA_SASL_MECHANISM: 'oauthbearer' },
    'KAFKA_SASL_TOKEN: required with KAFKA_SASL_MECHANISM=oauthbearer (better KAFKA_SASL_TOKEN_FILE, tokens expire)',
  ],
  [{ BROKER: 'rabbitmq' }, `RABBITMQ_URL: required with BROKER=rabbitmq: ${AMQP_URL}`],
  [{ ...RABBIT, RABBITMQ_URL: 'http://u:hush@r1' }, `RABBITMQ_URL: ${AMQP_URL}`],
  [
    { ...RABBIT, RABBITMQ_URL: 'amqp://r1,amqps://r2' },
    'RABBITMQ_URL: mixes amqp:// and amqps://; all nodes of a cluster need the same',
  ],
  [{ ...RABBIT, RABBITMQ_URL: 'amqp://u:12?hush@r1' }, `RABBITMQ_URL: ${MISPLACED}`],
  [{ ...RABBIT, RABBITMQ_URL: 'amqp://r1?heartbeat=0' }, `RABBITMQ_URL: ${HEARTBEAT}`],
  [{ ...RABBIT, RABBITMQ_URL: 'amqp://r1,amqp://r2?heartbeat=off' }, `RABBITMQ_URL: ${HEARTBEAT}`],
  [{ ...RABBIT, RABBITMQ_SSL_CA_FILE: PEM }, 'RABBITMQ_URL: amqps:// is needed with RABBITMQ_SSL_CA'],
  [
    { ...RABBIT, RABBITMQ_AUTH: 'external' },
    'RABBITMQ_AUTH: external needs an amqps:// URL',
    'RABBITMQ_AUTH: external needs a client certificate: RABBITMQ_SSL_CERT_FILE and RABBITMQ_SSL_KEY_FILE',
  ],
  [
    { ...RABBIT, RABBITMQ_EXCHANGE_TYPE: 'x' },
    'RABBITMQ_EXCHANGE_TYPE: expected topic, direct, fanout or headers, got "x"',
  ],
  [{ ...RABBIT, RABBITMQ_WINDOW: '0' }, 'RABBITMQ_WINDOW: expected a whole number from 1 to 65535, got "0"'],
  [
    { ...RABBIT, RABBITMQ_ROUTING_KEY: 'a.${' },
    'RABBITMQ_ROUTING_KEY: the template has "${" without "}" at character 3; write ${column}, and $${ for a literal ${, got "a.${"',
  ],
  [
    { ROUTE_KEY: '${}' },
    'ROUTE_KEY: the template has "${}" without a column name at character 1; write ${column}, and $${ for a literal ${, got "${}"',
  ],
  [{ ...KAFKA, ROUTE_TOPIC: 'orders/v1' }, `ROUTE_TOPIC: ${TOPIC}, got "orders/v1"`],
  [{ ...KAFKA, ROUTE_TOPIC: '..' }, `ROUTE_TOPIC: ${TOPIC}, got ".."`],
  [{ DEAD_LETTER_POLICY: 'block' }, `DEAD_LETTER_POLICY: ${LATER}, got "block"`],
  [{ MAX_ATTEMPTS: '0' }, 'MAX_ATTEMPTS: expected a whole number from 1 to 1000, got "0"'],
  [{ MAX_ATTEMPTS: '1e2' }, 'MAX_ATTEMPTS: expected a whole number from 1 to 1000, got "1e2"'],
  [
    { MAX_IN_FLIGHT_BYTES: '-1' },
    `MAX_IN_FLIGHT_BYTES: expected a size in bytes of at least 65536, ${SIZE}, got "-1"`,
  ],
  [
    { MAX_EVENT_BYTES: '65MiB' },
    'MAX_EVENT_BYTES: 68157440 is more than MAX_IN_FLIGHT_BYTES (67108864): such an event could never be sent',
  ],
  [
    { HTTP_PORT: 'tcp://10.0.0.7:80' },
    'HTTP_PORT: tcp://10.0.0.7:80 comes from Kubernetes, for a Service named "http"; set HTTP_PORT in the pod, or enableServiceLinks: false',
  ],
  [{ LOG_LEVEL: 'verbose' }, 'LOG_LEVEL: expected debug, info, warn or error, got "verbose"'],
  [{ SHUTDOWN_TIMEOUT_MS: '2.5' }, 'SHUTDOWN_TIMEOUT_MS: expected milliseconds as a whole number, got "2.5"'],
  [
    { OUTBOX_RELAY_CONFIG: file('typo.env', 'KAFKA_BROKER=k1:9092\n') },
    `KAFKA_BROKER: no such setting in ${join(folder, 'typo.env')}; the nearest is KAFKA_BROKERS`,
  ],
  [
    { OUTBOX_RELAY_CONFIG: file('list.json', '[]') },
    `OUTBOX_RELAY_CONFIG: can't read the file ${join(folder, 'list.json')} (expected one JSON object)`,
  ],
  ...(
    [
      ['token', '{\n  "PGPASSWORD": hush\n}', 2, 17],
      ['comma', '{"PGPASSWORD": "hush" "PGUSER": "u"}', 1, 23],
      ['end', '{"PGPASSWORD": "hush"', 1, 22],
      ['short', 'hush', 1, 1],
    ] as const
  ).map(([name, content, line, column]): readonly [Record<string, string>, string] => [
    { OUTBOX_RELAY_CONFIG: file(`${name}.json`, content) },
    `OUTBOX_RELAY_CONFIG: can't read the file ${join(folder, `${name}.json`)} (not valid JSON at line ${line} column ${column})`,
  ]),
  [{ OUTBOX_RELAY_CONFIG: NOWHERE }, `OUTBOX_RELAY_CONFIG: can't read the file ${NOWHERE} (ENOENT)`],
  [
    { OUTBOX_RELAY_CONFIG: file('number.json', '{"DATABASE_PASSWORD_FILE": 42}') },
    'DATABASE_PASSWORD_FILE: expected the path of a file, as a text',
  ],
];

function problemsOf(env: Record<string, string>): string[] {
  try {
    loadConfig(env);
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.problems.map(({ variable, message }) => `${variable}: ${message}`);
  }
}

describe('P10 a bad configuration is told by variable name with what is expected', () => {
  for (const [env, ...expected] of TABLE_OF_BAD_INPUT) {
    it(expected.join('; '), () => {
      const actual = problemsOf({ ...GOOD, ...env });
      assert.deepEqual(actual, expected);
      assert.ok(!actual.join('').includes('hush'), 'a password in a message');
    });
  }

  it('lists every problem at once', () => {
    const actual = problemsOf({
      BROKER: 'kafka',
      MAX_ATTEMPTS: 'x',
      SLOT_NAME: 'X',
      KAFKA_SASL_MECHANISM: 'plain',
    });
    const names = actual.map((line) => line.slice(0, line.indexOf(':')));
    assert.deepEqual(names.sort(), [
      'DATABASE_URL',
      'KAFKA_BROKERS',
      'KAFKA_SASL_PASSWORD',
      'KAFKA_SASL_USERNAME',
      'MAX_ATTEMPTS',
      'SLOT_NAME',
    ]);
  });

  it('the base of this table is itself good', () => {
    assert.deepEqual(problemsOf(GOOD), []);
    assert.deepEqual(problemsOf({ ...GOOD, ...KAFKA }), []);
    assert.deepEqual(problemsOf({ ...GOOD, ...RABBIT }), []);
  });
});
