import { connect } from 'amqplib';
import type { Channel, ConsumeMessage, Options } from 'amqplib';
import { uniqueName } from './names.ts';

export interface BoundQueue {
  readonly queue: string;
  /** Messages that wait in it. */
  readonly count: () => Promise<number>;
  /** Takes out every message that waits in it, in its order. Call it again for what comes later. */
  readonly readAll: (timeoutMs?: number) => Promise<ConsumeMessage[]>;
  /** Deletes the queue and disconnects. */
  readonly drop: () => Promise<void>;
}

/** A durable queue of its own, bound to an exchange (declared durable unless `declare` is false). */
export async function bindQueue(options: {
  url: string;
  exchange: string;
  exchangeType?: 'topic' | 'direct' | 'fanout' | 'headers';
  pattern?: string;
  declare?: boolean;
  /** TLS options, as for `tls.connect`. */
  socket?: object;
  arguments?: Options.AssertQueue['arguments'];
}): Promise<BoundQueue> {
  const { url, exchange, exchangeType = 'topic', pattern = '#', declare = true } = options;
  const connection = await connect(url, options.socket);
  connection.on('error', () => undefined);
  const channel = await connection.createChannel();
  const queue = uniqueName('queue');
  if (declare) await channel.assertExchange(exchange, exchangeType, { durable: true });
  await channel.assertQueue(queue, { durable: true, arguments: options.arguments });
  await channel.bindQueue(queue, exchange, pattern);
  return {
    queue,
    count: async () => (await channel.checkQueue(queue)).messageCount,
    readAll: async (timeoutMs = 60_000) => await readAll(channel, queue, timeoutMs),
    drop: async () => {
      await channel.deleteQueue(queue);
      await connection.close();
    },
  };
}

async function readAll(channel: Channel, queue: string, timeoutMs: number): Promise<ConsumeMessage[]> {
  const { messageCount } = await channel.checkQueue(queue);
  if (messageCount === 0) return [];
  const messages: ConsumeMessage[] = [];
  const complete = Promise.withResolvers<undefined>();
  const timer = setTimeout(
    () =>
      complete.reject(
        new Error(`${messages.length} of ${messageCount} read from ${queue} in ${timeoutMs} ms`),
      ),
    timeoutMs,
  );
  const { consumerTag } = await channel.consume(
    queue,
    (message) => {
      if (message === null) complete.reject(new Error(`${queue} was deleted`));
      else messages.push(message);
      if (messages.length >= messageCount) complete.resolve(undefined);
    },
    { noAck: true },
  );
  try {
    await complete.promise;
  } finally {
    clearTimeout(timer);
    await channel.cancel(consumerTag);
  }
  return messages;
}
