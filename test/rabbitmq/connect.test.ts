import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { RabbitmqConfig } from '../../src/config/config.ts';
import { RelayError } from '../../src/errors/errors.ts';
import { freePort } from '../../src/demo/services/ports.ts';
import { startRabbitmq } from '../../src/demo/services/rabbitmq.ts';
import type { RabbitmqServer } from '../../src/demo/services/rabbitmq.ts';
import { bindQueue } from '../support/consume-rabbitmq.ts';
import { uniqueName } from '../support/names.ts';
import { Proxy } from '../support/proxy.ts';
import { until } from '../support/until.ts';
import { codes, Harness, isStop, messages, rabbitmqConfig } from './harness.ts';

describe('RabbitMQ publisher, connecting', { timeout: 300_000 }, () => {
  let server: RabbitmqServer;
  let tls: NonNullable<RabbitmqServer['tls']>;

  before(async () => {
    server = await startRabbitmq({ tls: true });
    assert.ok(server.tls);
    ({ tls } = server);
  });
  after(async () => await server.remove());

  function tlsConfig(
    over: Partial<NonNullable<RabbitmqConfig['tls']>> = {},
  ): NonNullable<RabbitmqConfig['tls']> {
    return {
      ca: () => tls.certificates.caPem,
      cert: undefined,
      key: undefined,
      rejectUnauthorized: true,
      ...over,
    };
  }

  async function publishes(config: RabbitmqConfig): Promise<void> {
    const exchange = uniqueName('exchange');
    const queue = await bindQueue({ url: server.url, exchange });
    const harness = await Harness.connected(config);
    try {
      assert.deepEqual([...new Set(codes(await harness.send(messages(exchange, 20))))], ['durable']);
      assert.equal(await queue.count(), 20);
    } finally {
      await harness.close();
      await queue.drop();
    }
  }

  test('TLS with an authority of its own', async () => {
    await publishes(rabbitmqConfig(tls.url, { tls: tlsConfig() }));
  });

  test('EXTERNAL: the client certificate is the identity', async () => {
    const { certPem, keyPem } = tls.certificates.client;
    const url = tls.url.replace('guest:guest@', '');
    await publishes(
      rabbitmqConfig(url, { auth: 'external', tls: tlsConfig({ cert: () => certPem, key: () => keyPem }) }),
    );
    await connectFails(
      rabbitmqConfig(url, { auth: 'external', tls: tlsConfig() }),
      isStop('rabbitmq-authentication'),
    );
  });

  test('a certificate of an unknown authority stops, and is accepted only when the operator says so', async () => {
    await connectFails(rabbitmqConfig(tls.url), isStop('rabbitmq-tls-certificate'));
    await publishes(
      rabbitmqConfig(tls.url, { tls: tlsConfig({ ca: undefined, rejectUnauthorized: false }) }),
    );
  });

  test('TLS to a port without it, and the other way round', async () => {
    const crossed = server.url.replace('amqp:', 'amqps:');
    await connectFails(rabbitmqConfig(crossed, { tls: tlsConfig() }), isStop('rabbitmq-tls'));
    const plain = tls.url.replace('amqps:', 'amqp:');
    await connectFails(
      rabbitmqConfig(plain),
      (error) => error instanceof RelayError && error.consequence === 'retry',
    );
  });

  test('a wrong password stops with advice', async () => {
    await connectFails(
      rabbitmqConfig(server.url.replace('guest:guest', 'guest:wrong')),
      isStop('rabbitmq-authentication'),
    );
  });

  test('a virtual host that does not exist stops with advice; one with a special name works', async () => {
    await connectFails(rabbitmqConfig(`${server.url}/nowhere`), isStop('rabbitmq-vhost'));
    await server.ctl('add_vhost', 'a/b');
    await server.ctl('set_permissions', '-p', 'a/b', 'guest', '.*', '.*', '.*');
    const harness = await Harness.connected(rabbitmqConfig(`${server.url}/a%2Fb`, { declare: true }));
    assert.deepEqual(codes(await harness.send(messages('first', 1))), ['unroutable']);
    await harness.close();
  });

  test('a password that is not percent-encoded stops with advice', async () => {
    await connectFails(rabbitmqConfig('amqp://a:%zz@127.0.0.1'), isStop('rabbitmq-url'));
  });

  test('a password beyond ASCII', async () => {
    await server.ctl('add_user', 'ünï', 'pä%ß/@:');
    await server.ctl('set_permissions', '-p', '/', 'ünï', '.*', '.*', '.*');
    const login = `${encodeURIComponent('ünï')}:${encodeURIComponent('pä%ß/@:')}`;
    await publishes(rabbitmqConfig(server.url.replace('guest:guest', login)));
  });

  test('several URLs: the next is tried when one does not answer, at start and later', async (t) => {
    const nobody = `amqp://guest:guest@127.0.0.1:${await freePort()}`;
    const proxy = await Proxy.start(server.url);
    t.after(async () => await proxy.close());
    const urls = (): string[] => [nobody, proxy.url(server.url), server.url];
    const harness = await Harness.connected(rabbitmqConfig('', { urls }));
    t.after(async () => await harness.close());
    assert.equal(harness.connections.at(-1)?.reason, proxy.address);
    await proxy.close();
    await until(() => harness.connections.length === 3, { what: 'lost and connected again' });
    assert.deepEqual(
      harness.connections.map(({ connected }) => connected),
      [true, false, true],
    );
    assert.equal(harness.connections.at(-1)?.reason, `127.0.0.1:${server.port}`);
    await connectFails(
      rabbitmqConfig(nobody),
      (error) =>
        error instanceof RelayError && error.consequence === 'retry' && error.code === 'connection-refused',
    );
  });

  test('a password changed while it runs: fatal once, and connected again with the new one', async (t) => {
    await server.ctl('add_user', 'rotating', 'old');
    await server.ctl('set_permissions', '-p', '/', 'rotating', '.*', '.*', '.*');
    let password = 'old';
    const urls = (): string[] => [server.url.replace('guest:guest', `rotating:${password}`)];
    const harness = await Harness.connected(rabbitmqConfig('', { urls }));
    t.after(async () => await harness.close());
    await server.ctl('change_password', 'rotating', 'new');
    await server.ctl('close_all_connections', 'the test');
    await until(() => harness.fatal.length > 0, { what: 'told to halt' });
    assert.ok(isStop('rabbitmq-authentication')(harness.fatal[0]));
    assert.equal(harness.publisher.room(), 0);
    await assert.rejects(
      harness.publisher.connect(AbortSignal.timeout(30_000)),
      isStop('rabbitmq-authentication'),
    );
    password = 'new';
    await harness.publisher.connect(AbortSignal.timeout(30_000));
    await harness.whenRoom();
    assert.equal(harness.fatal.length, 1);
  });

  test('connecting ends with the signal, also when nothing answers', async (t) => {
    const proxy = await Proxy.start(server.url);
    t.after(async () => await proxy.close());
    proxy.blackHole();
    const harness = new Harness(rabbitmqConfig(proxy.url(server.url)));
    const startedAt = performance.now();
    await assert.rejects(harness.publisher.connect(AbortSignal.timeout(300)));
    assert.ok(performance.now() - startedAt < 3_000);
    const closing = new Harness(rabbitmqConfig(proxy.url(server.url)));
    const connecting = closing.publisher.connect(new AbortController().signal);
    await Promise.all([assert.rejects(connecting), closing.close()]);
    await harness.close();
  });
});

async function connectFails(config: RabbitmqConfig, matches: (error: unknown) => boolean): Promise<void> {
  const harness = new Harness(config);
  await assert.rejects(harness.publisher.connect(AbortSignal.timeout(30_000)), matches);
  assert.equal(harness.publisher.room(), 0);
  assert.deepEqual(harness.fatal, []);
  await harness.close();
}
