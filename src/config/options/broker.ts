import * as format from '../formats.ts';
import type { Group, Option } from './option.ts';

/** Longer than any broker takes, and what is added to it still fits a timer. */
const MOST_TIMEOUT_MS = 600_000;

/** Where the events go. */
export const BROKER_OPTIONS = {
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
  KAFKA_CLIENT: {
    group: 'kafka',
    doc: 'Library below the connections to Kafka: kafkajs or platformatic (maintained, but needs more memory). What is promised is the same.',
    default: 'kafkajs',
    format: format.oneOf(['kafkajs', 'platformatic']),
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
    format: format.milliseconds(1000, MOST_TIMEOUT_MS),
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
    format: format.milliseconds(1000, MOST_TIMEOUT_MS),
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
} as const satisfies Record<string, Option>;

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
