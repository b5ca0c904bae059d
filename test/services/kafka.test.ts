import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { KafkaConfig, SASLOptions } from 'kafkajs';
import { startKafka } from '../../src/demo/services/kafka.ts';
import type { KafkaOptions, KafkaServer } from '../../src/demo/services/kafka.ts';
import { countRecords, readTopic } from '../support/consume-kafka.ts';
import { Proxy } from '../support/proxy.ts';
import { freshTopic, kafkaClient, withAdmin } from '../support/topic.ts';
import { interruptedProgram, untilNothingIsLeft } from './leftovers.ts';

const servers: KafkaServer[] = [];
after(async () => await Promise.all(servers.map(async (server) => await server.remove())));

async function started(options: KafkaOptions = {}): Promise<KafkaServer> {
  const server = await startKafka({ heapMb: 256, ...options });
  servers.push(server);
  return server;
}

async function produce(config: KafkaConfig, topic: string, values: readonly string[]): Promise<void> {
  const producer = kafkaClient(config).producer();
  await producer.connect();
  try {
    const messages = values.map((value) => ({ key: value, value, headers: { id: value } }));
    await producer.send({ topic, acks: -1, messages });
  } finally {
    await producer.disconnect();
  }
}

test('Kafka service: an independent consumer reads every record once, in order', async () => {
  const { topic, brokers, drop } = await freshTopic({ partitions: 3 });
  const config = { brokers };
  assert.deepEqual(await readTopic(config, topic), []);
  const values = Array.from({ length: 1000 }, (_, index) => `v${index}`);
  await produce(config, topic, values);
  assert.equal(await countRecords(config, topic), 1000);
  const records = await readTopic(config, topic);
  assert.equal(records.length, 1000);
  assert.deepEqual(new Set(records.map(({ value }) => value?.toString())), new Set(values));
  for (const partition of [0, 1, 2]) {
    const offsets = records.filter((record) => record.partition === partition).map(({ offset }) => offset);
    assert.deepEqual(
      offsets,
      offsets.map((_, index) => BigInt(index)),
    );
  }
  assert.ok(records.every(({ key, value, headers }) => key === value?.toString() && headers['id'] === key));
  await drop();
});

test('Kafka service: keeps its records over a stop and a kill, and is seen only through its proxy', async () => {
  const proxy = await Proxy.start();
  const server = await started({ advertised: [proxy.address] });
  proxy.forwardTo(server.brokers[0] ?? '');
  try {
    const client = { brokers: [proxy.address] };
    const { topic } = await freshTopic({ client, partitions: 1 });
    await produce(client, topic, ['a']);
    await server.stop();
    await server.start();
    await produce(client, topic, ['b']);
    await server.stop('SIGKILL');
    await server.start();
    assert.deepEqual(
      (await readTopic(client, topic)).map(({ key }) => key),
      ['a', 'b'],
    );
    const cluster = await withAdmin(client, async (admin) => await admin.describeCluster());
    assert.deepEqual(
      cluster.brokers.map(({ port }) => port),
      [proxy.port],
    );
  } finally {
    await proxy.close();
    await server.remove();
  }
  await untilNothingIsLeft(server.folder);
});

const USER = { name: 'alice', password: 'secret of alice' };

function encoded(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function unsecuredToken(): string {
  const now = Math.floor(Date.now() / 1000);
  return `${encoded({ alg: 'none' })}.${encoded({ sub: USER.name, iat: now, exp: now + 600 })}.`;
}

const SASL: readonly SASLOptions[] = [
  { mechanism: 'plain', username: USER.name, password: USER.password },
  { mechanism: 'scram-sha-256', username: USER.name, password: USER.password },
  { mechanism: 'scram-sha-512', username: USER.name, password: USER.password },
  {
    mechanism: 'oauthbearer',
    oauthBearerProvider: async () => await Promise.resolve({ value: unsecuredToken() }),
  },
];

async function describe(config: KafkaConfig): Promise<unknown> {
  return await withAdmin(
    { retry: { retries: 0 }, ...config },
    async (admin) => await admin.describeCluster(),
  );
}

test('Kafka service: TLS with every SASL mechanism; a wrong password and plain text are refused', async () => {
  const server = await started({ security: 'sasl_ssl', users: [USER] });
  const { brokers, certificates } = server;
  const ssl = { ca: [certificates?.caPem ?? ''] };
  for (const sasl of SASL) {
    const nodes = await withAdmin({ brokers, ssl, sasl }, async (admin) => await admin.describeCluster());
    assert.equal(nodes.brokers.length, 1);
  }
  const wrong: SASLOptions = { mechanism: 'plain', username: USER.name, password: 'wrong' };
  await assert.rejects(describe({ brokers, ssl, sasl: wrong }), /Authentication failed/);
  await assert.rejects(describe({ brokers }));
  await describe({ brokers: server.plaintextBrokers });
  await server.remove();
});

test('Kafka service: three brokers, of which one may be killed', async () => {
  const server = await started({ brokers: 3 });
  const client = { brokers: server.brokers };
  const { topic } = await freshTopic({ client, partitions: 3, replicas: 3 });
  assert.equal(server.pids().length, 3);
  await server.stopBroker(1, 'SIGKILL');
  assert.equal(server.pids().length, 2);
  await produce({ ...client, retry: { retries: 20 } }, topic, ['a', 'b', 'c', 'd']);
  await server.startBroker(1);
  assert.equal((await readTopic(client, topic)).length, 4);
  await server.remove();
  await untilNothingIsLeft(server.folder);
});

test('Kafka service: nothing is left of a program that SIGKILL ended', async () => {
  const { folder, processesBefore } = await interruptedProgram('kafka', 'SIGKILL');
  assert.ok(processesBefore > 0, 'the broker was running');
  await untilNothingIsLeft(folder);
});
