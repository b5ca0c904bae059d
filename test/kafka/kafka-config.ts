import type { KafkaConfig } from '../../src/config/config.ts';

/** A configuration for tests: no security, no compression, batches of 900 kB. */
export function kafkaConfig(brokers: readonly string[], changes: Partial<KafkaConfig> = {}): KafkaConfig {
  return {
    kind: 'kafka',
    client: 'kafkajs',
    brokers,
    clientId: 'outbox-relay-test',
    compression: 'none',
    maxBatchBytes: 900_000,
    requestTimeoutMs: 10_000,
    ssl: undefined,
    sasl: undefined,
    ...changes,
  };
}

/** What is promised does not depend on the library below. */
export type KafkaClient = KafkaConfig['client'];
export const CLIENTS: readonly KafkaClient[] = ['kafkajs', 'platformatic'];
