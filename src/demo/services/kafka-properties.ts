import type { Certificates } from './certificates.ts';

export type KafkaSecurity = 'plaintext' | 'ssl' | 'sasl_plaintext' | 'sasl_ssl';

export interface KafkaUser {
  readonly name: string;
  readonly password: string;
}

/** Ports of one broker, all on 127.0.0.1. */
export interface KafkaPorts {
  /** Clients, with the security asked for. */
  readonly client: number;
  /** Brokers among each other and administration: always plaintext, so that it works beside any `security`. */
  readonly internal: number;
  readonly controller: number;
}

export interface BrokerProperties {
  readonly nodeId: number;
  /** Ports of every broker; the broker's own at index `nodeId - 1`. */
  readonly cluster: readonly KafkaPorts[];
  /** host:port that clients are told to connect to, when it is not the listener itself (a proxy). */
  readonly advertised: string | undefined;
  readonly dataDir: string;
  readonly security: KafkaSecurity;
  readonly users: readonly KafkaUser[];
  readonly certificates: Certificates | undefined;
  readonly clientAuth: 'none' | 'required';
  readonly settings: Readonly<Record<string, string>>;
}

const SASL_MECHANISMS = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512', 'OAUTHBEARER'] as const;

const LOGIN = 'org.apache.kafka.common.security';

/** Text of server.properties: KRaft, broker and controller in one process. */
export function brokerProperties(broker: BrokerProperties): string {
  const { nodeId, cluster, security } = broker;
  const own = cluster[nodeId - 1];
  if (own === undefined) throw new Error(`no ports for broker ${nodeId}`);
  const internal = `INTERNAL://127.0.0.1:${own.internal}`;
  const client = `127.0.0.1:${own.client}`;
  const all: Record<string, string> = {
    'process.roles': 'broker,controller',
    'node.id': String(nodeId),
    'controller.quorum.voters': cluster
      .map(({ controller }, index) => `${index + 1}@127.0.0.1:${controller}`)
      .join(','),
    'controller.listener.names': 'CONTROLLER',
    listeners: `CLIENT://${client},${internal},CONTROLLER://127.0.0.1:${own.controller}`,
    'advertised.listeners': `CLIENT://${broker.advertised ?? client},${internal}`,
    'inter.broker.listener.name': 'INTERNAL',
    'listener.security.protocol.map': `CLIENT:${security.toUpperCase()},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT`,
    'log.dirs': broker.dataDir,
    ...clusterDefaults(cluster.length),
    ...(security.startsWith('sasl') ? saslProperties(broker.users) : {}),
    ...(broker.certificates && security.endsWith('ssl')
      ? tlsProperties(broker.certificates, broker.clientAuth)
      : {}),
    ...broker.settings,
  };
  return Object.entries(all)
    .map(([name, value]) => `${name}=${value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n`)
    .join('');
}

function clusterDefaults(brokers: number): Record<string, string> {
  return {
    'auto.create.topics.enable': 'false',
    'offsets.topic.replication.factor': String(brokers),
    'offsets.topic.num.partitions': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'transaction.state.log.num.partitions': '1',
    'default.replication.factor': String(brokers),
    'min.insync.replicas': brokers >= 3 ? '2' : '1',
    // A group's first member would otherwise wait 3 s for others.
    'group.initial.rebalance.delay.ms': '0',
    'num.partitions': '1',
    // A killed broker may come back only after its old session ended: by default 9 s.
    'broker.heartbeat.interval.ms': '500',
    'broker.session.timeout.ms': '4000',
    'log.cleaner.dedupe.buffer.size': '2097152',
  };
}

function saslProperties(users: readonly KafkaUser[]): Record<string, string> {
  const plainUsers = users.map(({ name, password }) => `user_${name}="${password}"`).join(' ');
  const prefix = 'listener.name.client';
  return {
    [`${prefix}.sasl.enabled.mechanisms`]: SASL_MECHANISMS.join(','),
    [`${prefix}.plain.sasl.jaas.config`]: `${LOGIN}.plain.PlainLoginModule required ${plainUsers};`,
    [`${prefix}.scram-sha-256.sasl.jaas.config`]: `${LOGIN}.scram.ScramLoginModule required;`,
    [`${prefix}.scram-sha-512.sasl.jaas.config`]: `${LOGIN}.scram.ScramLoginModule required;`,
    // Accepts unsigned tokens (alg "none") that have sub, iat and exp.
    [`${prefix}.oauthbearer.sasl.jaas.config`]: `${LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`,
    [`${prefix}.oauthbearer.sasl.server.callback.handler.class`]: `${LOGIN}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler`,
  };
}

function tlsProperties(certificates: Certificates, clientAuth: 'none' | 'required'): Record<string, string> {
  const prefix = 'listener.name.client.ssl';
  return {
    [`${prefix}.keystore.type`]: 'PEM',
    [`${prefix}.keystore.key`]: certificates.server.keyPem.trim(),
    [`${prefix}.keystore.certificate.chain`]: certificates.server.certPem.trim(),
    [`${prefix}.truststore.type`]: 'PEM',
    [`${prefix}.truststore.certificates`]: certificates.caPem.trim(),
    [`${prefix}.client.auth`]: clientAuth,
  };
}

/** Arguments of the storage tool that make the SCRAM credentials before the first start. */
export function scramArguments(users: readonly KafkaUser[]): string[] {
  return users.flatMap(({ name, password }) =>
    ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((mechanism) => [
      '--add-scram',
      `${mechanism}=[name=${name},password=${password}]`,
    ]),
  );
}
