import type { Config } from '../../config/config.ts';
import type { Publisher, PublisherEvents } from './publisher.ts';

/** The one place that knows every broker. Loaded on demand: nobody pays for the client of another broker. */
export async function createPublisher(config: Config, events: PublisherEvents): Promise<Publisher> {
  const { broker } = config;
  if (broker.kind === 'kafka') {
    const { createKafkaPublisher } = await import('./kafka/kafka-publisher.ts');
    return createKafkaPublisher(broker, events);
  }
  if (broker.kind === 'rabbitmq') {
    const { createRabbitmqPublisher } = await import('./rabbitmq/publisher.ts');
    return createRabbitmqPublisher(broker, events);
  }
  const { createStdoutPublisher } = await import('./stdout/publisher.ts');
  return createStdoutPublisher(process.stdout, events);
}
