import { after } from 'node:test';
import { startKafka, type KafkaServer } from '../../src/demo/services/kafka.ts';
import { createKafkaPublisher } from '../../src/pipeline/publish/kafka/kafka-publisher.ts';
import { readTopic } from '../support/consume-kafka.ts';
import { Proxy } from '../support/proxy.ts';
import { publisherContract, type Received, type Subject } from '../support/publisher-contract.ts';
import { freshTopic } from '../support/topic.ts';
import { kafkaConfig } from './kafka-config.ts';

const REQUEST_TIMEOUT_MS = 2000;

/** A broker of our own: it has to tell its clients to come by way of the proxy, and is killed. */
interface Stage {
  readonly kafka: KafkaServer;
  readonly proxy: Proxy;
}

let stage: Promise<Stage> | undefined;

async function start(): Promise<Stage> {
  const proxy = await Proxy.start();
  const kafka = await startKafka({ advertised: [proxy.address] });
  proxy.forwardTo(kafka.brokers[0] as string);
  return { kafka, proxy };
}

after(async () => {
  const made = await stage;
  await made?.proxy.close();
  await made?.kafka.remove();
});

async function subject(): Promise<Subject> {
  stage ??= start();
  const { kafka, proxy } = await stage;
  const client = { brokers: kafka.plaintextBrokers };
  const topic = await freshTopic({ client, partitions: 3 });
  return {
    destination: topic.topic,
    create: (events) =>
      createKafkaPublisher(kafkaConfig([proxy.address], { requestTimeoutMs: REQUEST_TIMEOUT_MS }), events),
    received: async () => (await readTopic(client, topic.topic)).map(toReceived),
    network: {
      cut: () => proxy.cut(),
      blackHole: () => proxy.blackHole(),
      heal: () => proxy.heal(),
      connections: () => proxy.connections,
    },
    broker: { kill: async () => await kafka.stop('SIGKILL'), start: async () => await kafka.start() },
    remove: async () => await topic.drop(),
  };
}

function toReceived(record: Awaited<ReturnType<typeof readTopic>>[number]): Received {
  const { id = '', eventType = '', contentType = '', ...headers } = record.headers;
  const { key, value: body, timestampMs } = record;
  return { id, type: eventType, contentType, headers, key, body, timestampMs };
}

publisherContract('kafka', {
  subject,
  missingDestination: 'there-is-no-such-topic',
  tooLargeBytes: 1_500_000,
  largeBytes: 880_000,
  hasNetwork: true,
  canKill: true,
  keepsNull: true,
  answerDeadlineMs: REQUEST_TIMEOUT_MS + 2000,
});
