import { startKafka, type KafkaServer } from '../../../src/demo/services/kafka.ts';
import { readTopic } from '../../support/consume-kafka.ts';
import { topicOffsets, withAdmin } from '../../support/topic.ts';
import { until } from '../../support/until.ts';
import { NOTHING, TYPES, unsupported, type Broker, type BrokerRound, type Undo } from './brokers.ts';
import type { Delivered } from './checker.ts';
import { digestOf } from './digest.ts';
import { Line } from './line.ts';

const PARTITIONS = 4;

export class KafkaBroker implements Broker {
  readonly lines: readonly Line[];
  private readonly server: KafkaServer;
  private readonly killed = new Set<number>();

  private constructor(server: KafkaServer, lines: readonly Line[]) {
    this.server = server;
    this.lines = lines;
  }

  static async open(brokers: 1 | 3): Promise<KafkaBroker> {
    const lines = await Promise.all(Array.from({ length: brokers }, async () => await Line.start()));
    const advertised = lines.map(({ address }) => address);
    const server = await startKafka({ brokers, heapMb: 256, advertised });
    for (const [index, line] of lines.entries()) line.proxy.forwardTo(server.brokers[index] ?? '');
    return new KafkaBroker(server, lines);
  }

  async openRound(prefix: string, late: boolean): Promise<BrokerRound> {
    const client = { brokers: this.server.plaintextBrokers };
    const round = new KafkaRound(client, prefix, this.lines);
    for (const type of TYPES) if (!(late && type === 'late')) await round.make(type);
    return round;
  }

  pids(): number[] {
    return this.server.pids();
  }

  async kill(target: number): Promise<void> {
    const index = target % this.lines.length;
    this.killed.add(index);
    await this.server.stopBroker(index, 'SIGKILL');
  }

  async restore(): Promise<void> {
    for (const index of this.killed) await this.server.startBroker(index);
    this.killed.clear();
  }

  setFull(): Promise<void> {
    return unsupported();
  }

  async remove(): Promise<void> {
    await this.server.remove();
    await Promise.all(this.lines.map(async (line) => await line.close()));
  }
}

class KafkaRound implements BrokerRound {
  readonly env: Readonly<Record<string, string>>;
  private readonly client: { readonly brokers: string[] };
  private readonly prefix: string;
  private readonly replicas: number[];

  constructor(client: { readonly brokers: string[] }, prefix: string, lines: readonly Line[]) {
    this.client = client;
    this.prefix = prefix;
    this.replicas = lines.map((_, index) => index + 1);
    this.env = {
      BROKER: 'kafka',
      KAFKA_BROKERS: lines.map(({ address }) => address).join(','),
      ROUTE_TOPIC: `${prefix}.\${aggregatetype}`,
    };
  }

  async make(type: string): Promise<void> {
    const topic = `${this.prefix}.${type}`;
    await withAdmin(this.client, async (admin) => {
      await admin.createTopics({
        waitForLeaders: false,
        topics: [
          {
            topic,
            numPartitions: PARTITIONS,
            replicationFactor: this.replicas.length,
            // The time of delivery by a clock that the relay has no hand in.
            configEntries: [{ name: 'message.timestamp.type', value: 'LogAppendTime' }],
          },
        ],
      });
      await topicOffsets(admin, topic);
    });
  }

  async makeLate(): Promise<void> {
    await this.make('late');
  }

  /** The leader of one partition of each topic is taken out of its replicas, and comes back as the last of them. */
  async moveLeader(target: number): Promise<Undo> {
    if (this.replicas.length === 1) return NOTHING;
    const partition = target % PARTITIONS;
    const topics = TYPES.map((type) => `${this.prefix}.${type}`);
    const replicas = await this.leaderOf(topics[0] ?? '', partition);
    const others = this.replicas.filter((id) => id !== replicas);
    await this.assign(topics, partition, others);
    return async () => await this.assign(topics, partition, [...others, replicas]);
  }

  private async leaderOf(topic: string, partition: number): Promise<number> {
    return await withAdmin(this.client, async (admin) => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
      const found = topics[0]?.partitions.find(({ partitionId }) => partitionId === partition);
      return found?.leader ?? 1;
    });
  }

  private async assign(topics: readonly string[], partition: number, replicas: number[]): Promise<void> {
    await withAdmin(this.client, async (admin) => {
      const existing = new Set(await admin.listTopics());
      const moved = topics.filter((topic) => existing.has(topic));
      await admin.alterPartitionReassignments({
        topics: moved.map((topic) => ({ topic, partitionAssignment: [{ partition, replicas }] })),
      });
    });
  }

  removeBinding(): Promise<Undo> {
    return unsupported();
  }

  removeExchange(): Promise<Undo> {
    return unsupported();
  }

  async read(): Promise<Delivered[]> {
    const logs = await Promise.all(
      TYPES.map(async (type) => {
        const topic = `${this.prefix}.${type}`;
        const records = await until(async () => await readTopic(this.client, topic, 30_000), {
          what: `${topic} to be read`,
          timeoutMs: 60_000,
        });
        return records.map((record) => toDelivered(topic, record));
      }),
    );
    return logs.flat();
  }

  async drop(): Promise<void> {
    await withAdmin(this.client, async (admin) => {
      const topics = (await admin.listTopics()).filter((name) => name.startsWith(`${this.prefix}.`));
      await admin.deleteTopics({ topics });
    });
  }
}

function toDelivered(topic: string, record: Awaited<ReturnType<typeof readTopic>>[number]): Delivered {
  const { headers, value, key, partition, timestampMs } = record;
  return {
    id: headers['id'] ?? '',
    destination: topic.slice(topic.lastIndexOf('.') + 1),
    key: key ?? '',
    digest: digestOf({ type: headers['eventType'] ?? '', trace: headers['trace'] ?? '', body: value }),
    log: `${topic}/${partition}`,
    atMs: timestampMs,
  };
}
