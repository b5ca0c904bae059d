import { Kafka, logLevel } from 'kafkajs';
import type { Admin, KafkaConfig } from 'kafkajs';
import { uniqueName } from './names.ts';
import { kafkaService } from './services.ts';
import { until } from './until.ts';

export interface FreshTopic {
  readonly topic: string;
  readonly brokers: string[];
  readonly drop: () => Promise<void>;
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
  const numPartitions = options.partitions ?? 3;
  const replicationFactor = options.replicas ?? 1;
  await withAdmin(client, async (admin) => {
    const topics = [{ topic, numPartitions, replicationFactor, configEntries }];
    await admin.createTopics({ waitForLeaders: false, topics });
    // kafkajs' own waiting fails when it asks a broker that has not heard of the topic yet.
    await topicOffsets(admin, topic);
  });
  return {
    topic,
    brokers: client.brokers as string[],
    drop: async () => await withAdmin(client, async (admin) => await admin.deleteTopics({ topics: [topic] })),
  };
}

/**
 * First and next offset of every partition. Tried for a while: a broker is named as the leader in the metadata a
 * moment before it serves the partition, after the topic was made and after a restart.
 */
export async function topicOffsets(admin: Admin, topic: string): Promise<TopicOffsets> {
  const what = `the leaders of ${topic} to answer`;
  return await until(async () => await admin.fetchTopicOffsets(topic), { what });
}

type TopicOffsets = Awaited<ReturnType<Admin['fetchTopicOffsets']>>;

/** A client that logs nothing: errors are thrown. */
export function kafkaClient(config: KafkaConfig): Kafka {
  return new Kafka({ logLevel: logLevel.NOTHING, clientId: 'outbox-relay-test', ...config });
}

export async function withAdmin<T>(config: KafkaConfig, action: (admin: Admin) => Promise<T>): Promise<T> {
  // While leaders are elected, kafkajs gives up after nine seconds otherwise.
  const admin = kafkaClient({ retry: { retries: 12, maxRetryTime: 2_000 }, ...config }).admin();
  await admin.connect();
  try {
    return await action(admin);
  } finally {
    await admin.disconnect();
  }
}
