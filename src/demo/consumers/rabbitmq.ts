import { setTimeout as sleep } from 'node:timers/promises';
import type { RabbitmqConfig } from '../../config/config.ts';
import { openConnection } from '../../pipeline/publish/rabbitmq/connection.ts';
import type { Consumer, ConsumerOptions } from './consumer.ts';

const FINISH_TIMEOUT_MS = 30_000;
const POLL_MS = 20;

/**
 * Makes the exchange and a queue bound to it. The exchange goes with its last binding, the queue with its connection:
 * nothing is left on a broker that the demo did not start, however the demo ends.
 */
export async function openRabbitmqConsumer(
  config: RabbitmqConfig,
  options: ConsumerOptions,
): Promise<Consumer> {
  const { channel: exchange, onArrival, onFailure } = options;
  const {
    model,
    confirms: channel,
    destroy,
  } = await openConnection({
    config,
    signal: new AbortController().signal,
    connectedBefore: false,
  });
  let closing = false;
  const failed = (error?: Error): void => {
    if (!closing) onFailure(error ?? new Error('the consumer lost its connection to RabbitMQ'));
  };
  model.on('close', failed);
  channel.on('error', failed);
  const close = async (): Promise<void> => {
    if (closing) return;
    closing = true;
    await Promise.race([model.close().catch(() => undefined), sleep(1000, undefined, { ref: false })]);
    destroy();
  };
  try {
    await channel.assertExchange(exchange, 'topic', { durable: false, autoDelete: true });
    const { queue } = await channel.assertQueue('', { exclusive: true, durable: false });
    await channel.bindQueue(queue, exchange, '#');
    const { consumerTag } = await channel.consume(
      queue,
      (message) => message && onArrival(String(message.properties.messageId)),
      { noAck: true },
    );
    const finish = async (): Promise<void> => {
      const deadline = performance.now() + FINISH_TIMEOUT_MS;
      while ((await channel.checkQueue(queue)).messageCount > 0) {
        if (performance.now() > deadline) throw new Error(`the consumer did not empty its queue ${queue}`);
        await sleep(POLL_MS);
      }
      // Its answer comes behind every message that was on its way.
      await channel.cancel(consumerTag);
    };
    return { name: 'a RabbitMQ consumer', finish, close };
  } catch (error) {
    await close();
    throw error;
  }
}
