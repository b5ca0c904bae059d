import type { BrokerConfig, KafkaConfig, Secret, TlsConfig } from './config.ts';
import { rabbitmqConfig } from './rabbitmq.ts';
import { secretOf } from './secret.ts';
import type { SecretName, Settings } from './settings.ts';

/** The configuration of the chosen broker. Notes problems; what it returns is of use only when there are none. */
export function brokerConfig(settings: Settings, warn: (text: string) => void): BrokerConfig {
  const { BROKER: broker } = settings.values;
  if (broker === 'kafka') return kafkaConfig(settings, warn);
  if (broker === 'rabbitmq') return rabbitmqConfig(settings, warn);
  if (broker === undefined) requireBroker(settings);
  return { kind: 'stdout' };
}

function requireBroker(settings: Settings): void {
  // Present but wrong is already noted.
  if (settings.raw('BROKER') !== null) return;
  settings.problems.push({ variable: 'BROKER', message: 'required: kafka, rabbitmq or stdout' });
}

function kafkaConfig(settings: Settings, warn: (text: string) => void): KafkaConfig {
  const { values, problems } = settings;
  if (settings.raw('KAFKA_BROKERS') === null) {
    problems.push({
      variable: 'KAFKA_BROKERS',
      message: 'required with BROKER=kafka: host:port, comma-separated',
    });
  }
  const ssl = kafkaTls(settings);
  const sasl = kafkaSasl(settings);
  if (sasl !== undefined && ssl === undefined && !sasl.mechanism.startsWith('scram')) {
    warn(
      `KAFKA_SASL_MECHANISM: without TLS "${sasl.mechanism}" sends its secret in the clear; set KAFKA_SSL_ENABLED=true`,
    );
  }
  return {
    kind: 'kafka',
    client: values.KAFKA_CLIENT,
    brokers: values.KAFKA_BROKERS ?? [],
    clientId: values.KAFKA_CLIENT_ID,
    compression: values.KAFKA_COMPRESSION,
    maxBatchBytes: values.KAFKA_MAX_BATCH_BYTES,
    requestTimeoutMs: values.KAFKA_REQUEST_TIMEOUT_MS,
    ssl,
    sasl,
  };
}

function kafkaTls(settings: Settings): TlsConfig | undefined {
  const tls = tlsConfig(settings, 'KAFKA');
  const enabled = settings.values.KAFKA_SSL_ENABLED ?? tls.given.length > 0;
  if (!enabled && tls.given.length > 0) {
    const message = `is false, but ${tls.given.join(' and ')} would need TLS`;
    settings.problems.push({ variable: 'KAFKA_SSL_ENABLED', message });
  }
  return enabled ? tls.config : undefined;
}

type TlsPart = 'CA' | 'CERT' | 'KEY';

/** The `<prefix>_SSL_` settings, and the names of those that somebody set. */
export function tlsConfig(
  settings: Settings,
  prefix: 'KAFKA' | 'RABBITMQ',
): { config: TlsConfig; given: string[] } {
  const name = <P extends TlsPart>(part: P): `${typeof prefix}_SSL_${P}` => `${prefix}_SSL_${part}`;
  const ca = secretOf(settings, name('CA'));
  const cert = secretOf(settings, name('CERT'));
  const key = secretOf(settings, name('KEY'));
  const verify = `${prefix}_SSL_VERIFY` as const;
  const given: string[] = [name('CA'), name('CERT'), name('KEY')].filter((part) => isGiven(settings, part));
  if (settings.layer(verify) !== 'default') given.push(verify);
  requirePair(settings, name('CERT'), name('KEY'));
  return { config: { ca, cert, key, rejectUnauthorized: settings.values[verify] }, given };
}

/** Given at all, rightly or wrongly: a wrong value must not cause a second message that it is missing. */
export function isGiven(settings: Settings, name: SecretName): boolean {
  return settings.raw(name) !== null || settings.raw(`${name}_FILE`) !== null;
}

function requirePair(settings: Settings, cert: SecretName, key: SecretName): void {
  const [hasCert, hasKey] = [isGiven(settings, cert), isGiven(settings, key)];
  if (hasCert === hasKey) return;
  const [variable, other] = hasCert ? [key, cert] : [cert, key];
  settings.problems.push({ variable, message: `required with ${other} (or ${variable}_FILE)` });
}

function kafkaSasl(settings: Settings): KafkaConfig['sasl'] {
  const { values, problems } = settings;
  const password = secretOf(settings, 'KAFKA_SASL_PASSWORD');
  const token = secretOf(settings, 'KAFKA_SASL_TOKEN');
  const mechanism = values.KAFKA_SASL_MECHANISM;
  if (mechanism === undefined) {
    requireMechanism(settings);
    return undefined;
  }
  const need = (variable: SecretName | 'KAFKA_SASL_USERNAME', given: boolean, orFile: string): void => {
    if (!given)
      problems.push({ variable, message: `required with KAFKA_SASL_MECHANISM=${mechanism}${orFile}` });
  };
  if (mechanism === 'oauthbearer') {
    need(
      'KAFKA_SASL_TOKEN',
      isGiven(settings, 'KAFKA_SASL_TOKEN'),
      ' (better KAFKA_SASL_TOKEN_FILE, tokens expire)',
    );
    return { mechanism, token: token ?? NO_SECRET };
  }
  const username = values.KAFKA_SASL_USERNAME;
  need('KAFKA_SASL_USERNAME', username !== undefined, '');
  need('KAFKA_SASL_PASSWORD', isGiven(settings, 'KAFKA_SASL_PASSWORD'), ' (or KAFKA_SASL_PASSWORD_FILE)');
  // The library escapes the first comma only: brokers would call the password wrong.
  if (values.KAFKA_CLIENT === 'platformatic' && mechanism !== 'plain' && /,.*,/.test(username ?? '')) {
    const message = `with KAFKA_CLIENT=platformatic, ${mechanism} can't log in a user with several commas; use kafkajs`;
    problems.push({ variable: 'KAFKA_SASL_USERNAME', message });
  }
  return { mechanism, username: username ?? '', password: password ?? NO_SECRET };
}

/** Never called: a problem was noted where it stands. */
const NO_SECRET: Secret = () => '';

function requireMechanism(settings: Settings): void {
  if (settings.raw('KAFKA_SASL_MECHANISM') !== null) return;
  const credentials = [
    'KAFKA_SASL_USERNAME',
    'KAFKA_SASL_PASSWORD',
    'KAFKA_SASL_PASSWORD_FILE',
    'KAFKA_SASL_TOKEN',
    'KAFKA_SASL_TOKEN_FILE',
  ];
  const given = credentials.find((name) => settings.raw(name) !== null);
  if (given === undefined) return;
  const message = `required with ${given}: plain, scram-sha-256, scram-sha-512 or oauthbearer`;
  settings.problems.push({ variable: 'KAFKA_SASL_MECHANISM', message });
}
