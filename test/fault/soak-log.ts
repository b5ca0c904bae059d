import { topicOffsets, withAdmin } from '../support/topic.ts';
import { TYPES, type BrokerRound } from './random/brokers.ts';
import type { Delivered } from './random/checker.ts';

/** The broker's log, a minute at a time: RabbitMQ takes out what is read, Kafka is told to delete it. */
export class SoakLog {
  private readonly round: BrokerRound;
  /** By the relays' lines: it is asked only while they are whole. */
  private readonly client: { readonly brokers: string[] };
  /** Kafka's topics; none with RabbitMQ. */
  private readonly topics: readonly string[];

  constructor(round: BrokerRound) {
    const { ROUTE_TOPIC: template = '', KAFKA_BROKERS: brokers } = round.env;
    this.round = round;
    this.client = { brokers: brokers?.split(',') ?? [] };
    this.topics =
      brokers === undefined ? [] : TYPES.map((type) => template.replace('${aggregatetype}', type));
  }

  /** What was delivered since the last call; again what came between the two looks at the log of that call. */
  async read(): Promise<Delivered[]> {
    const ends = await this.ends();
    const delivered = await this.round.read();
    if (ends.length > 0) await this.deleteUpTo(ends);
    return delivered;
  }

  private async ends(): Promise<Ends[]> {
    if (this.topics.length === 0) return [];
    return await withAdmin(this.client, async (admin) => {
      const ends: Ends[] = [];
      for (const topic of this.topics) {
        const offsets = await topicOffsets(admin, topic);
        ends.push({
          topic,
          partitions: offsets.map(({ partition, high: offset }) => ({ partition, offset })),
        });
      }
      return ends;
    });
  }

  private async deleteUpTo(ends: readonly Ends[]): Promise<void> {
    await withAdmin(this.client, async (admin) => {
      for (const { topic, partitions } of ends) {
        // The client looks for the leaders only among the topics that it has asked about.
        await topicOffsets(admin, topic);
        await admin.deleteTopicRecords({ topic, partitions });
      }
    });
  }
}

interface Ends {
  readonly topic: string;
  readonly partitions: { partition: number; offset: string }[];
}
