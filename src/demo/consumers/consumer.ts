import type { createPublisher } from '../../pipeline/publish/create-publisher.ts';
import type { Config } from '../../config/config.ts';

/** Reads what the relay published, with a client of its own: the demo's summary rests on what it saw. */
export interface Consumer {
  /** How the summary calls it. */
  readonly name: string;
  /** Where a relay must publish to so that this consumer sees it; `undefined`: the configured broker. */
  readonly createPublisher?: typeof createPublisher;
  /** The relay has ended: reads everything that there is to its end. Rejects when that takes too long. */
  readonly finish: () => Promise<void>;
  /** Disconnects, and removes what was made for it. Never rejects. Idempotent. */
  readonly close: () => Promise<void>;
}

export interface ConsumerOptions {
  readonly config: Config;
  /** Topic or exchange, made by the consumer. */
  readonly channel: string;
  /** Every arrival, duplicates too. */
  readonly onArrival: (messageId: string) => void;
  /** It can't count any more. */
  readonly onFailure: (error: Error) => void;
}

export type OpenConsumer = (options: ConsumerOptions) => Promise<Consumer>;

/** The one for the configured broker. Loaded on demand, as the publishers are. */
export async function openConsumer(options: ConsumerOptions): Promise<Consumer> {
  const { broker } = options.config;
  if (broker.kind === 'kafka') {
    const { openKafkaConsumer } = await import('./kafka.ts');
    return await openKafkaConsumer(broker, options);
  }
  if (broker.kind === 'rabbitmq') {
    const { openRabbitmqConsumer } = await import('./rabbitmq.ts');
    return await openRabbitmqConsumer(broker, options);
  }
  const { openStdoutConsumer } = await import('./stdout.ts');
  return openStdoutConsumer(options);
}
