import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'node:test';
import { connect } from 'amqplib';
import { freshDatabase, withClient } from '../support/database.ts';
import { uniqueName } from '../support/names.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { kafkaService, rabbitmqService } from '../support/services.ts';
import { freshTopic, kafkaClient } from '../support/topic.ts';
import { until } from '../support/until.ts';

const TIMEOUT_MS = 30_000;

function example(name: string, env: Readonly<Record<string, string>>): RelayProcess {
  const script = fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));
  return RelayProcess.start({ script, args: [], env });
}

async function succeeded(process: RelayProcess): Promise<string> {
  const { code } = await process.exit;
  assert.equal(code, 0, process.output);
  return process.stdout.join('\n');
}

interface Scene {
  readonly consumer: string;
  /** Of relay and consumer. */
  readonly env: Readonly<Record<string, string>>;
  /** Delivers a message a second time, as a broker does after a lost acknowledgement. */
  readonly repeat: (messageId: string, body: string) => Promise<void>;
}

/** Producer → relay → consumer, then the same message once more. */
async function play({ consumer, env, repeat }: Scene): Promise<void> {
  const database = await freshDatabase();
  const all = { ...env, DATABASE_URL: database.url, HTTP_PORT: '0', HTTP_HOST: '127.0.0.1' };
  const running: RelayProcess[] = [];
  const start = (process: RelayProcess): RelayProcess => {
    running.push(process);
    return process;
  };
  try {
    await succeeded(start(RelayProcess.start({ args: ['migrate'], env: all })));
    const shipping = start(example(consumer, all));
    start(RelayProcess.start({ env: all }));
    const placed = await succeeded(start(example('producer.mjs', all)));
    const [, order = '', message = ''] = /order (\S+), message (\S+)/u.exec(placed) ?? [];

    await shipping.waitForLine(new RegExp(`shipped ${message}`, 'u'), TIMEOUT_MS);
    await repeat(message, JSON.stringify({ id: order, customer: 'Anna', item: 'Earl Grey' }));
    await shipping.waitForLine(new RegExp(`seen before ${message}`, 'u'), TIMEOUT_MS);
    const shipped = await withClient(database.url, async (client) => {
      await until(async () => (await client.query('select from outbox')).rowCount === 0, {
        what: 'the outbox to be empty',
      });
      return await client.query<{ order_id: string }>('select order_id from shipments');
    });
    assert.deepEqual(shipped.rows, [{ order_id: order }]);

    shipping.kill('SIGTERM');
    await succeeded(shipping);
  } finally {
    for (const process of running) await process.destroy();
    await database.drop();
  }
}

describe('examples', () => {
  it('P4 an order is shipped once, from Kafka, though its message comes twice', async () => {
    const { brokers } = await kafkaService();
    const { topic, drop } = await freshTopic();
    const settings = { BROKER: 'kafka', KAFKA_BROKERS: brokers.join(','), ROUTE_TOPIC: topic };
    try {
      await play({
        consumer: 'consumer-kafka.mjs',
        env: { ...settings, TOPIC: topic, GROUP: uniqueName('shipping') },
        repeat: async (id, value) => {
          const producer = kafkaClient({ brokers }).producer();
          await producer.connect();
          await producer.send({ topic, messages: [{ key: 'Anna', value, headers: { id } }] });
          await producer.disconnect();
        },
      });
    } finally {
      await drop();
    }
  });

  it('P4 an order is shipped once, from RabbitMQ, though its message comes twice', async () => {
    const { url } = await rabbitmqService();
    const connection = await connect(url);
    const channel = await connection.createChannel();
    const exchange = uniqueName('shop');
    const queue = uniqueName('shipping');
    // Before the first order, as the examples' README says: a message that no queue takes is not delivered.
    await channel.assertExchange(exchange, 'topic', { durable: true });
    await channel.assertQueue(queue, { durable: true });
    await channel.bindQueue(queue, exchange, '#');
    const settings = { BROKER: 'rabbitmq', RABBITMQ_URL: url, RABBITMQ_EXCHANGE: exchange };
    try {
      await play({
        consumer: 'consumer-rabbitmq.mjs',
        env: { ...settings, EXCHANGE: exchange, QUEUE: queue },
        repeat: async (messageId, body) => {
          channel.publish(exchange, 'Anna', Buffer.from(body), { messageId });
          await Promise.resolve();
        },
      });
    } finally {
      await channel.deleteQueue(queue);
      await channel.deleteExchange(exchange);
      await connection.close();
    }
  });
});
