/**
 * The effective configuration as the program sees it: checked, typed, units in the names.
 * Secrets are functions, because a `*_FILE` is read again at every connect: a rotated password needs no restart.
 */
export interface Config {
  readonly database: DatabaseConfig;
  readonly outbox: OutboxConfig;
  readonly source: 'auto' | 'streaming' | 'polling';
  readonly slotName: string;
  readonly publicationName: string;
  readonly broker: BrokerConfig;
  readonly route: RouteConfig;
  readonly cleanup: 'delete' | 'mark' | 'none';
  /** Marked rows are deleted so long after their delivery; undefined: never. */
  readonly markRetentionMs: number | undefined;
  /** Delivered partitions are dropped so long after the end of their range; undefined: never. */
  readonly partitionRetentionMs: number | undefined;
  readonly maxAttempts: number;
  readonly maxInFlightBytes: number;
  readonly maxInFlightEvents: number;
  /** Whoever writes notifies there, so that polling looks at once; undefined: nobody does. */
  readonly notifyChannel: string | undefined;
  readonly walRetentionLimitBytes: number;
  /** The application deletes its rows at once; undefined: that is noticed. */
  readonly deletedAtOnce: boolean | undefined;
  /** The slot follows the standbys: PostgreSQL 17 and later. */
  readonly slotFailover: boolean;
  readonly maxEventBytes: number;
  readonly topicGraceMs: number;
  readonly http: { readonly host: string; readonly port: number };
  readonly log: { readonly level: LogLevel; readonly format: 'json' | 'pretty' };
  readonly shutdownTimeoutMs: number;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** Reads the present value; from the environment, or from the file named by the `*_FILE` variable, each time anew. */
export type Secret = () => string;

export type SslMode = 'disable' | 'allow' | 'prefer' | 'require' | 'verify-ca' | 'verify-full';

export interface DatabaseConfig {
  /** Where to connect, with the present secrets. Called before every connection attempt. May throw RelayError('stop') when a secret file can't be read. */
  readonly connection: () => DatabaseConnection;
}

export interface DatabaseConnection {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string | undefined;
  /** With libpq's meaning; `postgres/connect.ts` builds the TLS options from it. */
  readonly sslMode: SslMode;
  /** PEM text, or `system`: the authorities of the system. Read from its file at every call, like the next two. */
  readonly sslRootCert: string | undefined;
  /** PEM text. */
  readonly sslCert: string | undefined;
  /** PEM text. */
  readonly sslKey: string | undefined;
  readonly connectTimeoutMs: number;
}

export interface OutboxConfig {
  readonly schema: string;
  readonly table: string;
  /** Rows have the columns `seq` and `xid`; taken for granted until the table is looked at (postgres/row-key.ts). */
  readonly numbered: boolean;
  /** Role → column name of the table. */
  readonly columns: {
    readonly id: string;
    readonly aggregateType: string;
    readonly aggregateId: string;
    readonly type: string;
    readonly payload: string;
    readonly headers: string;
    readonly seq: string;
    readonly xid: string;
    readonly createdAt: string;
    readonly deliveredAt: string;
  };
}

export interface RouteConfig {
  /** Template over the row's columns: Kafka's topic; RabbitMQ's exchange unless RABBITMQ_EXCHANGE is set. */
  readonly topic: string;
  /** Template of the ordering key: Kafka's record key; RabbitMQ's routing key unless RABBITMQ_ROUTING_KEY is set. */
  readonly key: string;
}

export type BrokerConfig = KafkaConfig | RabbitmqConfig | { readonly kind: 'stdout' };

export interface KafkaConfig {
  readonly kind: 'kafka';
  /** The library below the connections. */
  readonly client: 'kafkajs' | 'platformatic';
  readonly brokers: readonly string[];
  readonly clientId: string;
  readonly compression: 'none' | 'gzip';
  /** Upper bound of one record batch, bytes; must not exceed the topic's max.message.bytes. */
  readonly maxBatchBytes: number;
  readonly requestTimeoutMs: number;
  readonly ssl: undefined | TlsConfig;
  readonly sasl:
    | undefined
    | {
        readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
        readonly username: string;
        readonly password: Secret;
      }
    | { readonly mechanism: 'oauthbearer'; readonly token: Secret };
}

export interface TlsConfig {
  /** PEM texts, read from the configured files at every connect. */
  readonly ca: Secret | undefined;
  readonly cert: Secret | undefined;
  readonly key: Secret | undefined;
  /** false only when the operator said so. */
  readonly rejectUnauthorized: boolean;
}

export interface RabbitmqConfig {
  readonly kind: 'rabbitmq';
  /** amqp:// or amqps:// URLs, tried in turn; with the present secrets. */
  readonly urls: () => readonly string[];
  /** Template, or undefined: then ROUTE_TOPIC is the exchange. */
  readonly exchange: string | undefined;
  /** The exchange is the same for every event: its template names no column. */
  readonly exchangeIsConstant: boolean;
  readonly exchangeType: 'topic' | 'direct' | 'fanout' | 'headers';
  /** true: declare exchanges (durable) when missing; false: only check. */
  readonly declare: boolean;
  /** Template of the routing key when it is not the ordering key; then the ordering key travels in header `key`. */
  readonly routingKey: string | undefined;
  /** Publishes outstanding at a time. */
  readonly window: number;
  readonly confirmTimeoutMs: number;
  readonly tls: undefined | TlsConfig;
  /** `external`: the client certificate is the identity. */
  readonly auth: 'plain' | 'external';
}
