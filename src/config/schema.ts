import * as format from './formats.ts';
import type { Format } from './formats.ts';

export type Group =
  | 'database'
  | 'outbox'
  | 'source'
  | 'broker'
  | 'kafka'
  | 'rabbitmq'
  | 'route'
  | 'limits'
  | 'operation';

/** One setting; its name is the environment variable and the key in a configuration file. */
export interface Option {
  readonly group: Group;
  readonly doc: string;
  /** `null`: not set. Otherwise what a user would write. */
  readonly default: string | null;
  readonly format: Format<unknown>;
  /** Never shown. `url`: only the passwords inside are masked. */
  readonly secret?: true | 'url';
  /** A second variable `<NAME>_FILE` names a file with the value. */
  readonly file?: true;
}

const LATER_POLICY =
  'this release knows only "park" (the event goes to the dead letters, later events of its key flow on)';

/** Every setting, once; `load.ts`, `outbox-relay config` and `config/reference.*` all read this list. */
export const OPTIONS = {
  DATABASE_URL: {
    group: 'database',
    doc: "Connection of the relay, postgresql://user:password@host:port/database?sslmode=…; what it leaves open is taken from the PG* variables. PgBouncer can't carry replication: connect directly.",
    default: null,
    format: format.text,
    secret: 'url',
    file: true,
  },
  DATABASE_PASSWORD: {
    group: 'database',
    doc: 'Replaces the password of DATABASE_URL.',
    default: null,
    format: format.text,
    secret: true,
    file: true,
  },
  PGHOST: {
    group: 'database',
    doc: 'Host name, address, or folder of the Unix socket.',
    default: 'localhost',
    format: format.text,
  },
  PGPORT: { group: 'database', doc: 'Port.', default: '5432', format: format.integer(1, 65_535) },
  PGUSER: {
    group: 'database',
    doc: "Role; without it the name of the operating system's user.",
    default: null,
    format: format.text,
  },
  PGPASSWORD: { group: 'database', doc: 'Password.', default: null, format: format.text, secret: true },
  PGDATABASE: {
    group: 'database',
    doc: 'Database; without it the name of the role.',
    default: null,
    format: format.text,
  },
  PGSSLMODE: {
    group: 'database',
    doc: 'What libpq means by it: disable, allow, prefer, require, verify-ca or verify-full. Only the last two protect against an impostor. prefer when nothing is set.',
    default: null,
    format: format.oneOf(['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full']),
  },
  PGSSLROOTCERT: {
    group: 'database',
    doc: 'File with the authorities that may have signed the server\'s certificate, or "system" for those of the system (then sslmode is verify-full).',
    default: null,
    format: format.text,
  },
  PGSSLCERT: {
    group: 'database',
    doc: 'File with the client certificate.',
    default: null,
    format: format.text,
  },
  PGSSLKEY: {
    group: 'database',
    doc: 'File with the key of the client certificate.',
    default: null,
    format: format.text,
  },
  PGCONNECT_TIMEOUT: {
    group: 'database',
    doc: 'Seconds for a connection to be made.',
    default: '10',
    format: format.integer(1, 3600),
  },

  OUTBOX_TABLE: {
    group: 'outbox',
    doc: 'Table or schema.table, as in SQL: unquoted names are folded to lower case, "Quoted" ones are not.',
    default: 'public.outbox',
    format: format.qualifiedName,
  },
  OUTBOX_ID_COLUMN: column('id', 'Message id for consumers.'),
  OUTBOX_AGGREGATE_TYPE_COLUMN: column(
    'aggregatetype',
    'Kind of the thing the event is about; names the topic by default.',
  ),
  OUTBOX_AGGREGATE_ID_COLUMN: column(
    'aggregateid',
    'The thing the event is about; the ordering key by default.',
  ),
  OUTBOX_TYPE_COLUMN: column('type', 'Type of the event.'),
  OUTBOX_PAYLOAD_COLUMN: column('payload', 'Body, sent byte for byte as stored.'),
  OUTBOX_HEADERS_COLUMN: column('headers', 'Headers of the message, a JSON object.'),
  OUTBOX_SEQ_COLUMN: column('seq', 'Number that orders the rows.'),
  OUTBOX_XID_COLUMN: column('xid', 'Transaction of the row, default pg_current_xact_id().'),
  OUTBOX_CREATED_AT_COLUMN: column('created_at', 'Time of the event.'),
  OUTBOX_DELIVERED_AT_COLUMN: column('delivered_at', 'Time of delivery, for CLEANUP=mark.'),

  SOURCE: {
    group: 'source',
    doc: 'How rows are captured. auto and streaming both read by logical replication in this release.',
    default: 'auto',
    format: format.oneOf(['auto', 'streaming'], {
      polling: 'this release reads by logical replication only; use auto or streaming',
    }),
  },
  SLOT_NAME: {
    group: 'source',
    doc: 'Replication slot, created when missing. One of its own for every relay of a server.',
    default: 'outbox_relay',
    format: format.slotName,
  },
  PUBLICATION_NAME: {
    group: 'source',
    doc: "Publication of the outbox table's inserts, created by migrate.",
    default: 'outbox_relay',
    format: format.identifier,
  },
  CLEANUP: {
    group: 'source',
    doc: 'What happens to a delivered row: delete, mark (sets the delivered_at column) or none (partitions are dropped instead).',
    default: 'delete',
    format: format.oneOf(['delete', 'mark', 'none']),
  },

  BROKER: {
    group: 'broker',
    doc: 'Where events go: kafka, rabbitmq or stdout.',
    default: null,
    format: format.oneOf(['kafka', 'rabbitmq', 'stdout']),
  },

  KAFKA_BROKERS: {
    group: 'kafka',
    doc: 'Brokers to begin with: host:port, comma-separated.',
    default: null,
    format: format.hostsWithPorts,
  },
  KAFKA_CLIENT_ID: {
    group: 'kafka',
    doc: "Name of this client in the brokers' logs and quotas.",
    default: 'outbox-relay',
    format: format.text,
  },
  KAFKA_COMPRESSION: {
    group: 'kafka',
    doc: 'Compression of record batches: none or gzip.',
    default: 'none',
    format: format.oneOf(['none', 'gzip']),
  },
  KAFKA_MAX_BATCH_BYTES: {
    group: 'kafka',
    doc: "Upper bound of one record batch, bytes; must not exceed the topics' max.message.bytes.",
    default: '900000',
    format: format.bytes(1024, 1024 ** 3),
  },
  KAFKA_REQUEST_TIMEOUT_MS: {
    group: 'kafka',
    doc: 'Without an answer for so long, the outcome of a request is unknown and it is sent again.',
    default: '30000',
    format: format.milliseconds(1000),
  },
  KAFKA_SSL_ENABLED: {
    group: 'kafka',
    doc: 'TLS to the brokers; without it, TLS is used when one of the other KAFKA_SSL_ settings is given.',
    default: null,
    format: format.boolean,
  },
  KAFKA_SSL_CA: pem(
    'kafka',
    "Authorities that may have signed the brokers' certificates; without it, those that come with Node.js.",
  ),
  KAFKA_SSL_CERT: pem('kafka', 'Client certificate.'),
  KAFKA_SSL_KEY: pem('kafka', 'Key of the client certificate.'),
  KAFKA_SSL_VERIFY: {
    group: 'kafka',
    doc: 'false accepts any certificate: for trials only.',
    default: 'true',
    format: format.boolean,
  },
  KAFKA_SASL_MECHANISM: {
    group: 'kafka',
    doc: 'plain, scram-sha-256, scram-sha-512 or oauthbearer.',
    default: null,
    format: format.oneOf(['plain', 'scram-sha-256', 'scram-sha-512', 'oauthbearer']),
  },
  KAFKA_SASL_USERNAME: {
    group: 'kafka',
    doc: 'User for plain and scram.',
    default: null,
    format: format.text,
  },
  KAFKA_SASL_PASSWORD: {
    group: 'kafka',
    doc: 'Password for plain and scram.',
    default: null,
    format: format.text,
    secret: true,
    file: true,
  },
  KAFKA_SASL_TOKEN: {
    group: 'kafka',
    doc: 'Token for oauthbearer; give the file, which is read again at every connect, because tokens expire.',
    default: null,
    format: format.text,
    secret: true,
    file: true,
  },

  RABBITMQ_URL: {
    group: 'rabbitmq',
    doc: 'amqp:// or amqps:// URL; several, comma-separated, are the nodes of one cluster.',
    default: null,
    format: format.textList,
    secret: 'url',
    file: true,
  },
  RABBITMQ_USERNAME: {
    group: 'rabbitmq',
    doc: 'Replaces the user of RABBITMQ_URL.',
    default: null,
    format: format.text,
  },
  RABBITMQ_PASSWORD: {
    group: 'rabbitmq',
    doc: 'Replaces the password of RABBITMQ_URL.',
    default: null,
    format: format.text,
    secret: true,
    file: true,
  },
  RABBITMQ_EXCHANGE: {
    group: 'rabbitmq',
    doc: 'Template of the exchange; without it ROUTE_TOPIC is the exchange.',
    default: null,
    format: format.template,
  },
  RABBITMQ_EXCHANGE_TYPE: {
    group: 'rabbitmq',
    doc: 'Type of an exchange that the relay declares: topic, direct, fanout or headers.',
    default: 'topic',
    format: format.oneOf(['topic', 'direct', 'fanout', 'headers']),
  },
  RABBITMQ_DECLARE: {
    group: 'rabbitmq',
    doc: 'true declares missing exchanges (durable); false only checks that they exist.',
    default: 'true',
    format: format.boolean,
  },
  RABBITMQ_ROUTING_KEY: {
    group: 'rabbitmq',
    doc: 'Template of the routing key when it is not the ordering key, which then travels in the header "key".',
    default: null,
    format: format.template,
  },
  RABBITMQ_WINDOW: {
    group: 'rabbitmq',
    doc: 'Messages that wait for their confirm at a time.',
    default: '1000',
    format: format.integer(1, 65_535),
  },
  RABBITMQ_CONFIRM_TIMEOUT_MS: {
    group: 'rabbitmq',
    doc: 'Without a confirm for so long, the outcome is unknown and the message is sent again.',
    default: '30000',
    format: format.milliseconds(1000),
  },
  RABBITMQ_SSL_CA: pem(
    'rabbitmq',
    "Authorities that may have signed the broker's certificate; without it, those that come with Node.js.",
  ),
  RABBITMQ_SSL_CERT: pem('rabbitmq', 'Client certificate.'),
  RABBITMQ_SSL_KEY: pem('rabbitmq', 'Key of the client certificate.'),
  RABBITMQ_SSL_VERIFY: {
    group: 'rabbitmq',
    doc: 'false accepts any certificate: for trials only.',
    default: 'true',
    format: format.boolean,
  },
  RABBITMQ_AUTH: {
    group: 'rabbitmq',
    doc: 'plain (user and password) or external (the client certificate is the identity).',
    default: 'plain',
    format: format.oneOf(['plain', 'external']),
  },

  ROUTE_TOPIC: {
    group: 'route',
    doc: "Template over the row's columns: Kafka's topic, RabbitMQ's exchange unless RABBITMQ_EXCHANGE is set.",
    default: 'outbox.event.${aggregatetype}',
    format: format.template,
  },
  ROUTE_KEY: {
    group: 'route',
    doc: "Template of the ordering key: events with the same key arrive in commit order. Kafka's record key, RabbitMQ's routing key unless RABBITMQ_ROUTING_KEY is set.",
    default: '${aggregateid}',
    format: format.template,
  },

  DEAD_LETTER_POLICY: {
    group: 'limits',
    doc: 'What happens to an event that the broker refuses for good: park moves it to the dead letters.',
    default: 'park',
    format: format.oneOf(['park'], { 'park-key': LATER_POLICY, block: LATER_POLICY }),
  },
  MAX_ATTEMPTS: {
    group: 'limits',
    doc: 'Refusals of one event before it is parked; an outage of the broker never counts.',
    default: '5',
    format: format.integer(1, 1000),
  },
  MAX_IN_FLIGHT_BYTES: {
    group: 'limits',
    doc: 'Events held in memory, bytes.',
    default: '64MiB',
    format: format.bytes(64 * 1024),
  },
  MAX_IN_FLIGHT_EVENTS: {
    group: 'limits',
    doc: 'Events held in memory, number; also the bound of duplicates after a crash.',
    default: '10000',
    format: format.integer(1, 10_000_000),
  },
  MAX_EVENT_BYTES: {
    group: 'limits',
    doc: 'A larger event is parked, bytes.',
    default: '16MiB',
    format: format.bytes(1024, 1024 ** 3),
  },
  TOPIC_GRACE_MS: {
    group: 'limits',
    doc: 'A missing topic or exchange is waited for so long before its events are parked, milliseconds.',
    default: '60000',
    format: format.milliseconds(0),
  },

  HTTP_HOST: {
    group: 'operation',
    doc: 'Address for /metrics, /livez and /readyz.',
    default: '0.0.0.0',
    format: format.text,
  },
  HTTP_PORT: {
    group: 'operation',
    doc: 'Port for them; 0 takes any free one.',
    default: '9464',
    format: format.integer(0, 65_535),
  },
  LOG_LEVEL: {
    group: 'operation',
    doc: 'debug, info, warn or error.',
    default: 'info',
    format: format.oneOf(['debug', 'info', 'warn', 'error']),
  },
  LOG_FORMAT: {
    group: 'operation',
    doc: 'json or pretty; without it pretty on a terminal, json elsewhere.',
    default: null,
    format: format.oneOf(['json', 'pretty']),
  },
  SHUTDOWN_TIMEOUT_MS: {
    group: 'operation',
    doc: 'Time for the drain after SIGTERM, milliseconds; below the 30 s after which Kubernetes kills.',
    default: '25000',
    format: format.milliseconds(0),
  },
} as const satisfies Record<string, Option>;

export type OptionName = keyof typeof OPTIONS;

/** Documented for later releases: setting one must not pass in silence. */
export const LATER_OPTIONS = ['WAL_RETENTION_LIMIT_BYTES'];

function column<const D extends string>(name: D, doc: string) {
  return { group: 'outbox', doc: `Column: ${doc}`, default: name, format: format.identifier } as const;
}

function pem<const G extends Group>(group: G, doc: string) {
  return {
    group,
    doc: `${doc} PEM text.`,
    default: null,
    format: format.pem,
    secret: true,
    file: true,
  } as const;
}
