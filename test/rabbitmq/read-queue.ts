import { connect } from 'amqplib';
import type { ConsumeMessage } from 'amqplib';
import { until } from '../support/until.ts';

/** Everything that waits in a queue, in its order, and stays there. A connection of its own: the broker may have been away. */
export async function readQueue(url: string, queue: string): Promise<ConsumeMessage[]> {
  const connection = await connect(url);
  try {
    const channel = await connection.createChannel();
    const { messageCount } = await channel.checkQueue(queue);
    const read: ConsumeMessage[] = [];
    await channel.consume(queue, (message) => message !== null && read.push(message));
    await until(() => read.length >= messageCount, { what: `${messageCount} messages`, timeoutMs: 60_000 });
    return read;
  } finally {
    await connection.close();
  }
}
