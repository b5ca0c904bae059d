// Ships orders that arrive on Kafka, each once, however often a message comes.
//   KAFKA_BROKERS=127.0.0.1:9092 node examples/consumer-kafka.mjs
import { once } from 'node:events';
import { Kafka } from 'kafkajs';
import { openShipping } from './once.mjs';

const { KAFKA_BROKERS = '127.0.0.1:9092', TOPIC = 'outbox.event.order', GROUP = 'shipping' } = process.env;

const shipping = await openShipping();
const consumer = new Kafka({ clientId: 'shipping', brokers: KAFKA_BROKERS.split(',') }).consumer({
  groupId: GROUP,
});
await consumer.connect();
await consumer.subscribe({ topic: TOPIC, fromBeginning: true });
await consumer.run({
  // The offset is committed after this has resolved; when it rejects, the message comes again.
  eachMessage: ({ message }) => shipping.ship(String(message.headers.id), JSON.parse(String(message.value))),
});

await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
await consumer.disconnect();
await shipping.close();
