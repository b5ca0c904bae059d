import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:tls';
import { after, before, test } from 'node:test';
import type { KafkaConfig, TlsConfig } from '../../src/config/config.ts';
import { startKafka, type KafkaServer } from '../../src/demo/services/kafka.ts';
import { RelayError } from '../../src/errors/errors.ts';
import { createKafkaPublisher } from '../../src/pipeline/publish/kafka/kafka-publisher.ts';
import { countRecords } from '../support/consume-kafka.ts';
import { Proxy } from '../support/proxy.ts';
import { Driver, makeMessage } from '../support/publisher-driver.ts';
import { freshTopic } from '../support/topic.ts';
import { until } from '../support/until.ts';
import { CLIENTS, kafkaConfig, type KafkaClient } from './kafka-config.ts';

const USER = { name: 'relay', password: 'se-cr_et!' };
type Mechanism = 'plain' | 'scram-sha-256' | 'scram-sha-512';
/** Brokers end a connection that is used longer without a new login. */
const SESSION_MS = 2000;
const MECHANISMS: readonly Mechanism[] = ['plain', 'scram-sha-256', 'scram-sha-512'];

/** `sasl`: TLS and every mechanism, behind a proxy. `mutual`: TLS with a client certificate, no login. */
let sasl: KafkaServer;
let mutual: KafkaServer;
let proxy: Proxy;
let topic: string;

before(async () => {
  proxy = await Proxy.start();
  [sasl, mutual] = await Promise.all([
    startKafka({
      security: 'sasl_ssl',
      users: [USER],
      advertised: [proxy.address],
      heapMb: 256,
      settings: { 'connections.max.reauth.ms': String(SESSION_MS) },
    }),
    startKafka({ security: 'ssl', clientAuth: 'required', heapMb: 256 }),
  ]);
  proxy.forwardTo(sasl.brokers[0] as string);
  ({ topic } = await freshTopic({ client: { brokers: sasl.plaintextBrokers } }));
});

after(async () => {
  await proxy.close();
  await Promise.all([sasl.remove(), mutual.remove()]);
});

function caOfSasl(): string {
  return sasl.certificates?.caPem ?? '';
}

function tls(changes: Partial<TlsConfig> = {}): TlsConfig {
  return { ca: caOfSasl, cert: undefined, key: undefined, rejectUnauthorized: true, ...changes };
}

function login(mechanism: Mechanism, password: () => string): Partial<KafkaConfig> {
  return { ssl: tls(), sasl: { mechanism, username: USER.name, password } };
}

function tokenPart(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function bearer(text: string): Partial<KafkaConfig> {
  return { ssl: tls(), sasl: { mechanism: 'oauthbearer', token: () => text } };
}

/** An unsigned token, as the broker of the tests takes it. */
function token(expiresInS: number): string {
  const nowS = Math.floor(Date.now() / 1000);
  return `${tokenPart({ alg: 'none' })}.${tokenPart({ sub: 'relay', iat: nowS - 600, exp: nowS + expiresInS })}.`;
}

type Changes = Partial<KafkaConfig>;

async function withClient(
  client: KafkaClient,
  changes: Changes,
  run: (driver: Driver) => Promise<void>,
): Promise<void> {
  const config = kafkaConfig([proxy.address], { client, requestTimeoutMs: 4000, ...changes });
  const driver = new Driver((events) => createKafkaPublisher(config, events));
  try {
    await run(driver);
  } finally {
    driver.stop();
    proxy.heal();
    await driver.publisher.close(2000);
  }
}

async function connect(driver: Driver): Promise<void> {
  await driver.publisher.connect(AbortSignal.timeout(20_000));
}

let sent = 0;

async function assertDelivers(driver: Driver, to = topic): Promise<void> {
  const message = makeMessage({ destination: to, id: `s-${sent++}` });
  driver.send([message]);
  await until(() => driver.final.has(message), { what: 'an outcome' });
  assert.deepEqual(driver.final.get(message), { kind: 'durable' });
}

for (const client of CLIENTS) {
  const withDriver = async (changes: Changes, run: (driver: Driver) => Promise<void>): Promise<void> =>
    await withClient(client, changes, run);

  const assertRefused = async (changes: Changes, code: string, consequence = 'stop'): Promise<void> => {
    await withDriver(changes, async (driver) => {
      await assert.rejects(connect(driver), (error: unknown) => {
        assert.ok(error instanceof RelayError, String(error));
        assert.deepEqual([error.code, error.consequence], [code, consequence], error.message);
        assert.ok(error.advice.includes('KAFKA_'), error.advice);
        return true;
      });
      assert.equal(driver.publisher.room(), 0);
    });
  };

  for (const mechanism of MECHANISMS) {
    test(`${client}: login by ${mechanism} over TLS delivers`, async () => {
      const already = await countRecords({ brokers: sasl.plaintextBrokers }, topic);
      await withDriver(
        login(mechanism, () => USER.password),
        async (driver) => {
          await connect(driver);
          await assertDelivers(driver);
        },
      );
      assert.equal(await countRecords({ brokers: sasl.plaintextBrokers }, topic), already + 1);
    });

    test(`${client}: P10 a wrong password by ${mechanism} needs a person`, async () => {
      await assertRefused(
        login(mechanism, () => 'wrong'),
        'kafka-authentication',
      );
    });
  }

  test(`${client}: login by a token delivers`, async () => {
    await withDriver(
      { ssl: tls(), sasl: { mechanism: 'oauthbearer', token: () => token(600) } },
      async (driver) => {
        await connect(driver);
        await assertDelivers(driver);
      },
    );
  });

  test(`${client}: P10 an expired token, and one that is none, need a person`, async () => {
    await assertRefused(bearer(token(-300)), 'kafka-authentication');
    await assertRefused(bearer('not-a-token'), 'kafka-authentication');
  });

  for (const changes of [login('scram-sha-256', () => USER.password), bearer(token(3600))]) {
    test(`${client}: P4 a session by ${changes.sasl?.mechanism} that the broker limits is prolonged in time`, async () => {
      await withDriver(changes, async (driver) => {
        await connect(driver);
        const beyond = performance.now() + 1.2 * SESSION_MS;
        while (performance.now() < beyond) await assertDelivers(driver);
        assert.deepEqual([driver.unknowns, driver.connections], [[], [true]]);
      });
    });
  }

  test(`${client}: secrets are read again at every connect: a corrected password needs no restart`, async () => {
    let password = 'wrong';
    await withDriver(
      login('scram-sha-512', () => password),
      async (driver) => {
        await assert.rejects(connect(driver), RelayError);
        ({ password } = USER);
        await connect(driver);
        await assertDelivers(driver);
      },
    );
  });

  test(`${client}: P10 credentials refused later halt the publisher; connect brings it back with the new secret`, async () => {
    let { password } = USER;
    await withDriver(
      login('plain', () => password),
      async (driver) => {
        await connect(driver);
        await assertDelivers(driver);
        password = 'changed';
        proxy.cut();
        const fatal = await until(() => driver.fatal[0], { what: 'the refusal' });
        assert.ok(fatal instanceof RelayError && fatal.code === 'kafka-authentication');
        assert.equal(driver.publisher.room(), 0);
        ({ password } = USER);
        await connect(driver);
        await assertDelivers(driver);
        assert.equal(driver.fatal.length, 1);
      },
    );
  });

  test(`${client}: a broker that falls silent during the login is given up by the deadline`, async () => {
    await withDriver({ ...login('plain', () => USER.password), requestTimeoutMs: 500 }, async (driver) => {
      proxy.stallAfter(3000);
      const started = performance.now();
      await assert.rejects(connect(driver), RelayError);
      assert.ok(performance.now() - started < 4000);
    });
  });

  test(`${client}: P10 TLS that can not be trusted needs a person; it is accepted only when the operator says so`, async () => {
    const logged = login('plain', () => USER.password);
    await assertRefused({ ...logged, ssl: tls({ ca: undefined }) }, 'kafka-tls');
    await assertRefused({ ...logged, ssl: tls({ ca: () => 'no certificate' }) }, 'kafka-tls');
    await withDriver(
      { ...logged, ssl: tls({ ca: undefined, rejectUnauthorized: false }) },
      async (driver) => {
        await connect(driver);
        await assertDelivers(driver);
      },
    );
  });

  test(`${client}: the name of the broker goes with the first message of TLS`, async () => {
    const names: string[] = [];
    const server = createServer({
      cert: sasl.certificates?.server.certPem,
      key: sasl.certificates?.server.keyPem,
      SNICallback: (name, done) => {
        names.push(name);
        done(new Error('not here'));
      },
    });
    server.on('tlsClientError', () => undefined).listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      const { port } = server.address() as AddressInfo;
      await withDriver({ brokers: [`localhost:${port}`], ssl: tls() }, async (driver) => {
        await assert.rejects(connect(driver), RelayError);
      });
      assert.equal(names[0], 'localhost');
    } finally {
      server.close();
    }
  });

  test(`${client}: P10 a listener of another kind is told apart as far as it can be`, async () => {
    await assertRefused({ ssl: tls() }, 'kafka-unreachable', 'retry');
    await assertRefused({}, 'kafka-unreachable', 'retry');
    await assertRefused({ brokers: sasl.plaintextBrokers, ssl: tls() }, 'kafka-unreachable', 'retry');
  });

  test(`${client}: a client certificate is shown; without one, the broker refuses and a person is needed`, async () => {
    const { certificates } = mutual;
    const { topic: own } = await freshTopic({ client: { brokers: mutual.plaintextBrokers } });
    const ca = (): string => certificates?.caPem ?? '';
    const { brokers } = mutual;
    const cert = (): string => certificates?.client.certPem ?? '';
    const key = (): string => certificates?.client.keyPem ?? '';
    await withDriver({ brokers, ssl: tls({ ca, cert, key }) }, async (driver) => {
      await connect(driver);
      await assertDelivers(driver, own);
    });
    await assertRefused({ brokers, ssl: tls({ ca }) }, 'kafka-tls');
  });
}
