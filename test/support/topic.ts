import { Kafka, logLevel } from 'kafkajs';
import type { Admin, KafkaConfig } from 'kafkajs';
import { uniqueName } from './names.ts';
import { kafkaService } from './services.ts';

export interface FreshTopic {
  readonly topic: string;
  readonly brokers: string[];
  drop(): Promise<void>;
}

/** A topic of its own, on the shared broker or on the one given. Default: 3 partitions, one replica. */
export async function freshTopic(
  options: {
    client?: KafkaConfig;
    partitions?: number;
    replicas?: number;
    /** Topic settings such as `max.message.bytes`. */
    config?: Readonly<Record<string, string>>;
  } = {},
): Promise<FreshTopic> {
  const client = options.client ?? { brokers: (await kafkaService()).brokers };
  const topic = uniqueName('test');
  const configEntries = Object.entries(options.config ?? {}).map(([name, value]) => ({ name, value }));
  await withAdmin(client, async (admin) => {
    await admin.createTopics({
      waitForLeaders: true,
      topics: [
        {
          topic,
          numPartitions: options.partitions ?? 3,
          replicationFactor: options.replicas ?? 1,
          configEntries,
        },
      ],
    });
  });
  return {
    topic,
    brokers: client.brokers as string[],
    drop: async () => await withAdmin(client, async (admin) => await admin.deleteTopics({ topics: [topic] })),
  };
}

/** A client that only says what went wrong. */
export function kafkaClient(config: KafkaConfig): Kafka {
  return new Kafka({ logLevel: logLevel.NOTHING, clientId: 'outbox-relay-test', ...config });
}

export async function withAdmin<T>(config: KafkaConfig, action: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = kafkaClient(config).admin();
  await admin.connect();
  try {
    return await action(admin);
  } finally {
    await admin.disconnect();
  }
}
