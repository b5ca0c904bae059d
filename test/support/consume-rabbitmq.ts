import { connect } from 'amqplib';
import type { Channel, ChannelModel, ConsumeMessage, Options } from 'amqplib';
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
  const link = new Link(url, options.socket);
  const channel = await link.channel();
  const queue = uniqueName('queue');
  if (declare) await channel.assertExchange(exchange, exchangeType, { durable: true });
  await channel.assertQueue(queue, { durable: true, arguments: options.arguments });
  await channel.bindQueue(queue, exchange, pattern);
  return {
    queue,
    count: async () => (await (await link.channel()).checkQueue(queue)).messageCount,
    readAll: async (timeoutMs = 60_000) => await readAll(await link.channel(), queue, timeoutMs),
    drop: async () => {
      await (await link.channel()).deleteQueue(queue);
      await link.close();
    },
  };
}

/** Connects again when the broker was away: the queue outlives it. */
class Link {
  private readonly url: string;
  private readonly socket: object | undefined;
  private open: { connection: ChannelModel; channel: Channel } | undefined;

  constructor(url: string, socket: object | undefined) {
    this.url = url;
    this.socket = socket;
  }

  async channel(): Promise<Channel> {
    if (this.open) return this.open.channel;
    const connection = await connect(this.url, this.socket);
    connection.on('error', () => undefined);
    const channel = await connection.createChannel();
    channel.on('error', () => undefined);
    channel.on('close', () => (this.open = undefined));
    connection.on('close', () => (this.open = undefined));
    this.open = { connection, channel };
    return channel;
  }

  async close(): Promise<void> {
    await this.open?.connection.close();
  }
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
