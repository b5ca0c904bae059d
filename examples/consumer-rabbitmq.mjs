// Ships orders that arrive on RabbitMQ, each once, however often a message comes.
//   RABBITMQ_URL=amqp://127.0.0.1 node examples/consumer-rabbitmq.mjs
import { once } from 'node:events';
import { connect } from 'amqplib';
import { openShipping } from './once.mjs';

const {
  RABBITMQ_URL = 'amqp://127.0.0.1',
  EXCHANGE = 'outbox.event.order',
  QUEUE = 'shipping',
} = process.env;

const shipping = await openShipping();
const connection = await connect(RABBITMQ_URL);
const channel = await connection.createChannel();
await channel.assertExchange(EXCHANGE, 'topic', { durable: true });
await channel.assertQueue(QUEUE, { durable: true });
await channel.bindQueue(QUEUE, EXCHANGE, '#');
// One at a time: a second one in work could overtake the first, and with it the order of a customer.
await channel.prefetch(1);
await channel.consume(QUEUE, (message) => void handle(message));
console.log(`waiting for messages of ${EXCHANGE} in the queue ${QUEUE}`);

await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
await connection.close();
await shipping.close();

async function handle(message) {
  if (message === null) throw new Error(`the queue ${QUEUE} was deleted`);
  try {
    await shipping.ship(message.properties.messageId, JSON.parse(message.content.toString()));
    channel.ack(message);
  } catch (error) {
    console.error(`failed, comes again: ${error.message}`);
    channel.nack(message);
  }
}
