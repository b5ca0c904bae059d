import { after } from 'node:test';
import type { ConsumeMessage } from 'amqplib';
import { connect } from 'amqplib';
import { startRabbitmq } from '../../src/demo/services/rabbitmq.ts';
import type { RabbitmqServer } from '../../src/demo/services/rabbitmq.ts';
import { createRabbitmqPublisher } from '../../src/pipeline/publish/rabbitmq/publisher.ts';
import { uniqueName } from '../support/names.ts';
import { Proxy } from '../support/proxy.ts';
import { publisherContract } from '../support/publisher-contract.ts';
import type { Received, Subject } from '../support/publisher-contract.ts';
import { rabbitmqConfig } from './harness.ts';
import { readQueue } from './read-queue.ts';

const CONFIRM_TIMEOUT_MS = 2_000;
const MAX_MESSAGE_BYTES = 4_000_000;

interface Stage {
  readonly server: RabbitmqServer;
  readonly proxy: Proxy;
}

/** A broker of its own: it is killed. */
let stage: Promise<Stage> | undefined;

async function start(): Promise<Stage> {
  const server = await startRabbitmq({ settings: { max_message_size: String(MAX_MESSAGE_BYTES) } });
  return { server, proxy: await Proxy.start(server.url) };
}

after(async () => {
  const made = await stage;
  await made?.proxy.close();
  await made?.server.remove();
});

async function subject(): Promise<Subject> {
  stage ??= start();
  const { server, proxy } = await stage;
  const name = uniqueName('contract');
  await onBroker(server.url, async (channel) => {
    await channel.assertExchange(name, 'topic', { durable: true });
    await channel.assertQueue(name, { durable: true });
    await channel.bindQueue(name, name, '#');
  });
  const config = rabbitmqConfig(proxy.url(server.url), { window: 500, confirmTimeoutMs: CONFIRM_TIMEOUT_MS });
  return {
    destination: name,
    create: (events) => createRabbitmqPublisher(config, events),
    received: async () => (await readQueue(server.url, name)).map(toReceived),
    network: {
      cut: () => proxy.cut(),
      blackHole: () => proxy.blackHole(),
      heal: () => proxy.heal(),
      connections: () => proxy.connections,
    },
    broker: { kill: async () => await server.stop('SIGKILL'), start: async () => await server.start() },
    remove: async () =>
      await onBroker(server.url, async (channel) => {
        await channel.deleteQueue(name);
        await channel.deleteExchange(name);
      }),
  };
}

type AdminChannel = Awaited<ReturnType<Awaited<ReturnType<typeof connect>>['createChannel']>>;

async function onBroker(url: string, run: (channel: AdminChannel) => Promise<void>): Promise<void> {
  const connection = await connect(url);
  try {
    await run(await connection.createChannel());
  } finally {
    await connection.close();
  }
}

/** AMQP's time has whole seconds: it is looked at elsewhere. */
function toReceived({ content, fields, properties }: ConsumeMessage): Received {
  const headers = (properties.headers ?? {}) as Record<string, string> & { 'null-payload'?: unknown };
  return {
    id: properties.messageId as string,
    key: headers['key'] ?? fields.routingKey,
    type: properties.type as string,
    contentType: properties.contentType as string,
    headers,
    body: headers['null-payload'] === true ? null : content,
  };
}

publisherContract('rabbitmq', {
  subject,
  missingDestination: 'there-is-no-such-exchange',
  tooLargeBytes: MAX_MESSAGE_BYTES + 1,
  largeBytes: MAX_MESSAGE_BYTES - 1,
  hasNetwork: true,
  canKill: true,
  keepsNull: true,
  answerDeadlineMs: CONFIRM_TIMEOUT_MS + 2_000,
});
