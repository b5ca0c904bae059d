import { bindQueue } from '../support/consume-rabbitmq.ts';
import { readTopic, scanTopic } from '../support/consume-kafka.ts';
import { uniqueName } from '../support/names.ts';
import { freshTopic, kafkaClient, topicOffsets } from '../support/topic.ts';

/** A delivered event as the broker shows it. */
export interface Arrival {
  readonly key: string;
  /** The `n` of the payload: grows in commit order. */
  readonly n: number;
  /** When it came, milliseconds since the epoch: Kafka's append time; with RabbitMQ the reader's clock, or 0. */
  readonly atMs: number;
  /** Commit time by the database's clock, where the payload carries it. */
  readonly insertedAtMs: number;
}

export interface BenchTarget {
  readonly env: Readonly<Record<string, string>>;
  readonly destination: string;
  count(): Promise<number>;
  /** How often a drain may count: seldom where the broker notes the time of each arrival, as counting costs CPU. */
  readonly countEveryMs: number;
  arrivals(): Promise<Arrival[]>;
  drop(): Promise<void>;
}

export async function kafkaBenchTarget(brokers: string[], partitions = 4): Promise<BenchTarget> {
  const { topic, drop } = await freshTopic({
    client: { brokers },
    partitions,
    // The broker's own clock at the append, not the relay's.
    config: { 'message.timestamp.type': 'LogAppendTime' },
  });
  const admin = kafkaClient({ brokers }).admin();
  await admin.connect();
  return {
    env: { BROKER: 'kafka', KAFKA_BROKERS: brokers.join(','), ROUTE_TOPIC: topic },
    destination: topic,
    count: async () =>
      (await topicOffsets(admin, topic)).reduce((sum, { low, high }) => sum + Number(high) - Number(low), 0),
    countEveryMs: 200,
    arrivals: async () =>
      (await readTopic({ brokers }, topic, 120_000)).map(({ key, value, timestampMs }) =>
        toArrival(key, value, timestampMs),
      ),
    drop: async () => {
      await admin.disconnect();
      await drop();
    },
  };
}

export async function rabbitmqBenchTarget(
  url: string,
  queueType: 'classic' | 'quorum',
): Promise<BenchTarget> {
  const exchange = uniqueName('bench');
  const bound = await bindQueue({ url, exchange, arguments: { 'x-queue-type': queueType } });
  return {
    env: { BROKER: 'rabbitmq', RABBITMQ_URL: url, RABBITMQ_EXCHANGE: exchange },
    destination: exchange,
    count: () => bound.count(),
    countEveryMs: 20,
    arrivals: async () =>
      (await bound.readAll(120_000)).map(({ fields, content }) => toArrival(fields.routingKey, content, 0)),
    drop: () => bound.drop(),
  };
}

function toArrival(key: string | null, value: Buffer | null, atMs: number): Arrival {
  const text = value?.toString() ?? '';
  return {
    key: key ?? '',
    n: Number(/"n": ?(\d+)/.exec(text)?.[1] ?? Number.NaN),
    insertedAtMs: Number(/"at": ?([\d.]+)/.exec(text)?.[1] ?? 0),
    atMs,
  };
}

/** As `arrivals` of a Kafka target, for topics too large to be held. */
export async function scanArrivals(
  target: BenchTarget,
  visit: (arrival: Arrival) => void,
  timeoutMs = 600_000,
): Promise<void> {
  const brokers = (target.env['KAFKA_BROKERS'] ?? '').split(',');
  await scanTopic({ brokers }, target.destination, {
    timeoutMs,
    visit: ({ key, value, timestampMs }) => visit(toArrival(key, value, timestampMs)),
  });
}

/** Gaps, inversions and duplicates: a run with any of them has no speed. */
export class CompletenessCheck {
  private readonly seen = new Set<number>();
  private readonly latest = new Map<string, number>();

  /** In the order of each partition or queue. Throws. */
  add({ key, n }: Arrival): void {
    if (this.seen.has(n)) throw new Error(`event ${n} came twice`);
    this.seen.add(n);
    const last = this.latest.get(key) ?? 0;
    if (n < last) throw new Error(`event ${n} of ${key} came after ${last}`);
    this.latest.set(key, n);
  }

  /** Throws. */
  end(events: number): void {
    if (this.seen.size !== events) throw new Error(`${events} committed, ${this.seen.size} arrived`);
  }
}

export function assertComplete(arrivals: readonly Arrival[], events: number): void {
  const check = new CompletenessCheck();
  for (const arrival of arrivals) check.add(arrival);
  check.end(events);
}
