import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { connect, credentials } from 'amqplib';
import { startRabbitmq } from '../../src/demo/services/rabbitmq.ts';
import type { RabbitmqServer } from '../../src/demo/services/rabbitmq.ts';
import { bindQueue } from '../support/consume-rabbitmq.ts';
import { uniqueName } from '../support/names.ts';
import { rabbitmqService } from '../support/services.ts';
import { until } from '../support/until.ts';
import { interruptedProgram, untilNothingIsLeft } from './leftovers.ts';

const servers: RabbitmqServer[] = [];
after(async () => await Promise.all(servers.map(async (server) => await server.remove())));

async function publish(url: string, exchange: string, texts: readonly string[]): Promise<void> {
  const connection = await connect(url);
  const channel = await connection.createConfirmChannel();
  for (const text of texts) channel.publish(exchange, 'key', Buffer.from(text), { persistent: true });
  await channel.waitForConfirms();
  await connection.close();
}

test('RabbitMQ service: an independent consumer reads every message once, in order', async () => {
  const { url } = await rabbitmqService();
  const exchange = uniqueName('exchange');
  const queue = await bindQueue({ url, exchange });
  assert.deepEqual(await queue.readAll(), []);
  const texts = Array.from({ length: 1000 }, (_, index) => `v${index}`);
  await publish(url, exchange, texts);
  await until(async () => (await queue.count()) === 1000, { what: '1000 messages in the queue' });
  const read = await queue.readAll();
  assert.deepEqual(
    read.map(({ content }) => content.toString()),
    texts,
  );
  assert.equal(await queue.count(), 0);
  await queue.drop();
});

test('RabbitMQ service: keeps its messages over a stop and a kill; TLS and EXTERNAL; leaves nothing', async () => {
  const server = await startRabbitmq({ tls: true });
  servers.push(server);
  const { url, certificates } = server.tls ?? assert.fail('no TLS');
  const ca = [certificates.caPem];
  const first = await bindQueue({ url: server.url, exchange: 'events' });
  await publish(server.url, 'events', ['a']);

  await (await connect(url, { ca })).close();
  const external = { ca, cert: certificates.client.certPem, key: certificates.client.keyPem };
  const nameless = new URL(url);
  nameless.username = nameless.password = '';
  const options = { ...external, credentials: credentials.external() };
  await (await connect(nameless.href, options)).close();
  assert.match(await server.ctl('list_users'), /outbox-relay-client/);

  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    await server.stop(signal);
    await server.start();
    assert.match(await server.ctl('list_queues', 'name', 'messages'), new RegExp(`${first.queue}\\s+1`));
  }
  await server.remove();
  await untilNothingIsLeft(server.folder);
});

test('RabbitMQ service: nothing is left of a program that SIGKILL ended', async () => {
  const { folder, processesBefore } = await interruptedProgram('rabbitmq', 'SIGKILL');
  assert.ok(processesBefore > 0, 'the broker was running');
  await untilNothingIsLeft(folder);
});
