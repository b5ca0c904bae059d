import { bindQueue } from './consume-rabbitmq.ts';
import { countRecords, readTopic } from './consume-kafka.ts';
import type { ReceivedMessage } from './judge.ts';
import { uniqueName } from './names.ts';
import { kafkaService, rabbitmqService } from './services.ts';
import { freshTopic } from './topic.ts';

/** A place that a relay delivers to, and an independent reader of it. */
export interface Target {
  /** The relay's variables for this broker. */
  readonly env: Readonly<Record<string, string>>;
  count(): Promise<number>;
  read(): Promise<TargetMessage[]>;
  drop(): Promise<void>;
}

export interface TargetMessage extends ReceivedMessage {
  readonly headers: Readonly<Record<string, string>>;
}

export type BrokerName = 'kafka' | 'rabbitmq';

/** `address`: a proxy's, in place of the broker's own. */
export async function freshTarget(broker: BrokerName, address?: string): Promise<Target> {
  return broker === 'kafka' ? await kafkaTarget(address) : await rabbitmqTarget(address);
}

async function kafkaTarget(address?: string): Promise<Target> {
  const { brokers } = await kafkaService();
  const { topic, drop } = await freshTopic({ partitions: 4 });
  return {
    env: { BROKER: 'kafka', KAFKA_BROKERS: address ?? brokers.join(','), ROUTE_TOPIC: topic },
    count: () => countRecords({ brokers }, topic),
    read: async () =>
      (await readTopic({ brokers }, topic)).map(({ key, value, headers }) => ({
        id: headers['id'] ?? '',
        key,
        payload: value?.toString() ?? null,
        headers,
      })),
    drop,
  };
}

async function rabbitmqTarget(address?: string): Promise<Target> {
  const { url } = await rabbitmqService();
  const exchange = uniqueName('exchange');
  const bound = await bindQueue({ url, exchange });
  return {
    env: { BROKER: 'rabbitmq', RABBITMQ_URL: address ?? url, RABBITMQ_EXCHANGE: exchange },
    count: () => bound.count(),
    read: async () =>
      (await bound.readAll()).map(({ properties, fields, content }) => ({
        id: String(properties.messageId),
        key: fields.routingKey,
        payload: content.toString(),
        headers: (properties.headers ?? {}) as Record<string, string>,
      })),
    drop: () => bound.drop(),
  };
}
