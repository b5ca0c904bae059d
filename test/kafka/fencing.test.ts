import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { AclOperationTypes, AclPermissionTypes, AclResourceTypes, ResourcePatternTypes } from 'kafkajs';
import { startKafka, type KafkaServer } from '../../src/demo/services/kafka.ts';
import { RelayError } from '../../src/errors/errors.ts';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import { createKafkaPublisher } from '../../src/pipeline/publish/kafka/kafka-publisher.ts';
import { readTopic } from '../support/consume-kafka.ts';
import { uniqueName } from '../support/names.ts';
import { Proxy } from '../support/proxy.ts';
import { Driver, makeMessage } from '../support/publisher-driver.ts';
import { freshTopic, withAdmin } from '../support/topic.ts';
import { until } from '../support/until.ts';
import { CLIENTS, kafkaConfig, type KafkaClient } from './kafka-config.ts';

/** Numbers of the protocol: these enums are no named exports of the library. */
const TOPIC: AclResourceTypes = 2;
const TRANSACTIONAL_ID: AclResourceTypes = 5;
const PREFIXED: ResourcePatternTypes = 4;
const ALLOW: AclPermissionTypes = 3;
const WRITE_AND_DESCRIBE: readonly AclOperationTypes[] = [4, 8];

const RELAY = { name: 'relay', password: 'secret' };

/** Who logs in comes by way of the proxy, and may do what is granted; administration may do all, directly. */
let proxy: Proxy;
let kafka: KafkaServer;

before(async () => {
  proxy = await Proxy.start();
  kafka = await startKafka({
    advertised: [proxy.address],
    security: 'sasl_plaintext',
    users: [RELAY],
    settings: {
      'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      'super.users': 'User:ANONYMOUS',
    },
  });
  proxy.forwardTo(kafka.brokers[0] as string);
});

after(async () => {
  await proxy.close();
  await kafka.remove();
});

const admin = (): { brokers: string[] } => ({ brokers: kafka.plaintextBrokers });

async function grant(resourceType: AclResourceTypes, resourceName: string): Promise<void> {
  const acl = WRITE_AND_DESCRIBE.map((operation) => ({
    resourceType,
    resourceName,
    resourcePatternType: PREFIXED,
    principal: `User:${RELAY.name}`,
    host: '*',
    operation,
    permissionType: ALLOW,
  }));
  await withAdmin(admin(), async (client) => await client.createAcls({ acl }));
}

interface Relay {
  readonly driver: Driver;
  readonly notices: string[];
}

/** Runs with the publishers of two relays: the first logs in, the second needs no privileges. */
async function withRelays(
  client: KafkaClient,
  run: (first: Relay, second: Relay) => Promise<void>,
): Promise<void> {
  const sasl = { mechanism: 'plain', username: RELAY.name, password: () => RELAY.password } as const;
  const relays = [
    kafkaConfig([proxy.address], { client, sasl }),
    kafkaConfig(kafka.plaintextBrokers, { client }),
  ].map((config) => {
    const notices: string[] = [];
    const driver = new Driver((events) =>
      createKafkaPublisher(config, { ...events, onNotice: (message) => void notices.push(message) }),
    );
    return { driver, notices };
  });
  try {
    for (const { driver } of relays) await driver.publisher.connect(AbortSignal.timeout(20_000));
    await run(relays[0] as Relay, relays[1] as Relay);
  } finally {
    proxy.heal();
    for (const { driver } of relays) {
      driver.stop();
      await driver.publisher.close(1000);
    }
  }
}

async function deliver({ driver }: Relay, messages: readonly Message[]): Promise<void> {
  driver.send(messages);
  await until(() => driver.allFinal(messages), { timeoutMs: 20_000, what: 'an outcome for all' });
  assert.ok(driver.outcomes(messages).every((outcome) => outcome?.kind === 'durable'));
}

function series(topic: string, ...ids: readonly string[]): Message[] {
  return ids.map((id) => makeMessage({ destination: topic, id, key: 'k' }));
}

async function idsIn(topic: string): Promise<string[]> {
  return (await readTopic(admin(), topic)).map(({ headers }) => headers['id'] ?? '');
}

for (const client of CLIENTS) {
  test(`${client}: P10 a cluster that grants no epochs is delivered to without, and the log says once what to grant`, async () => {
    const { topic } = await freshTopic({ client: admin(), partitions: 1 });
    await grant(TOPIC, topic);
    await withRelays(client, async (relay) => {
      const outbox = uniqueName(`${client}-refused`);
      for (const id of ['1', '2']) {
        relay.driver.publisher.lead?.(outbox);
        await deliver(relay, series(topic, id));
      }
      assert.equal(relay.notices.length, 1);
      const wanted = `grant WRITE and DESCRIBE on the transactional id outbox-relay.${outbox}`;
      assert.ok(relay.notices[0]?.includes(wanted), relay.notices[0]);
      assert.deepEqual([relay.driver.fatal, relay.driver.unknowns], [[], []]);
    });
  });

  test(`${client}: P8 what a former leader wrote in time and the network brings too late is refused; it leads no longer`, async () => {
    const { topic } = await freshTopic({ client: admin(), partitions: 1 });
    await grant(TOPIC, topic);
    await grant(TRANSACTIONAL_ID, `outbox-relay.${client}_`);
    await withRelays(client, async (former, successor) => {
      const outbox = uniqueName(client);
      former.driver.publisher.lead?.(outbox);
      await deliver(former, series(topic, '1'));
      proxy.blackHole();
      const late = series(topic, 'late');
      former.driver.send(late);
      successor.driver.publisher.lead?.(outbox);
      await deliver(successor, series(topic, '2', '3'));
      proxy.heal();
      await until(() => former.driver.fatal.length > 0, { what: 'the former leader told' });
      const [error] = former.driver.fatal;
      assert.ok(error instanceof RelayError);
      assert.deepEqual([error.code, error.consequence], ['fenced', 'retry']);
      const codes = former.driver.unknowns.map((outcome) => outcome.kind === 'unknown' && outcome.code);
      assert.equal(codes[0], 'fenced');
      assert.equal(former.driver.publisher.room(), 0);
      await deliver(successor, series(topic, '4'));
      assert.deepEqual(await idsIn(topic), ['1', '2', '3', '4']);
      // The same process, once it leads again.
      former.driver.publisher.lead?.(outbox);
      await former.driver.publisher.connect(AbortSignal.timeout(10_000));
      await until(() => former.driver.allFinal(late), { what: 'the message sent again' });
      assert.deepEqual(await idsIn(topic), ['1', '2', '3', '4', 'late']);
      assert.deepEqual([...former.notices, ...successor.notices], []);
    });
  });
}
