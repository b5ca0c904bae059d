import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { RabbitmqConfig } from '../../src/config/config.ts';
import { startRabbitmq } from '../../src/demo/services/rabbitmq.ts';
import type { RabbitmqServer } from '../../src/demo/services/rabbitmq.ts';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import { ROUTE_REFUSED } from '../../src/pipeline/publish/missing-targets.ts';
import { bindQueue } from '../support/consume-rabbitmq.ts';
import type { BoundQueue } from '../support/consume-rabbitmq.ts';
import { uniqueName } from '../support/names.ts';
import { Proxy } from '../support/proxy.ts';
import { until } from '../support/until.ts';
import { codes, Harness, message, messages, rabbitmqConfig } from './harness.ts';
import { readQueue } from './read-queue.ts';

const MAX_MESSAGE_BYTES = 100_000;

/** A broker of its own, for it is stopped, blocked and cut off here. */
describe('RabbitMQ publisher, outages', { timeout: 300_000 }, () => {
  let server: RabbitmqServer;

  before(async () => {
    server = await startRabbitmq({ settings: { max_message_size: String(MAX_MESSAGE_BYTES) } });
  });
  after(async () => await server.remove());

  async function setUp(t: TestContext, over: Partial<RabbitmqConfig> = {}) {
    const exchange = uniqueName('exchange');
    const queue = await bindQueue({ url: server.url, exchange });
    t.after(async () => await queue.drop().catch(() => undefined));
    const harness = await Harness.connected(rabbitmqConfig(server.url, over));
    t.after(async () => await harness.close());
    return { exchange, queue, harness };
  }

  test('P1 the broker blocks publishers: no room, nothing times out, everything arrives afterwards', async (t) => {
    const { exchange, queue, harness } = await setUp(t, { confirmTimeoutMs: 1_000 });
    const sent = messages(exchange, 50);
    await harness.sendUntilDurable(sent.slice(0, 10));
    await server.ctl('set_vm_memory_high_watermark', 'absolute', '1MB');
    t.after(async () => await server.ctl('set_vm_memory_high_watermark', 'absolute', '1GB'));
    // RabbitMQ tells a connection only when it publishes.
    const first = harness.handOver(40, sent.slice(10));
    await until(() => harness.publisher.room() === 0, { what: 'no room while blocked' });
    const blockedAt = performance.now();
    await until(() => performance.now() - blockedAt > 2_500, {
      what: 'more than the confirm deadline',
      timeoutMs: 5_000,
    });
    assert.equal(harness.publisher.room(), 0);
    assert.equal(harness.connections.length, 1, 'a blocked connection is kept');
    const calls = harness.roomCalls;
    await server.ctl('set_vm_memory_high_watermark', 'absolute', '1GB');
    await until(() => first.size === 40, { what: 'the outcomes after the alarm' });
    assert.deepEqual([...new Set(codes([...first.values()]))], ['durable']);
    await until(() => harness.roomCalls > calls, { what: 'room announced' });
    assert.equal((await assertDelivered(queue, sent)).length, sent.length);
  });

  test('P1 the connection is closed by force again and again: unknown, reconnected, nothing lost', async (t) => {
    const { exchange, queue, harness } = await setUp(t);
    const sent: Message[] = [];
    let rounds = 0;
    for (let round = 0; round < 3; round++) {
      const batch = messages(exchange, 100);
      const sending = harness.sendUntilDurable(batch);
      const clients = harness.connections.length;
      // The queue's own connection would be closed as well: only ours.
      await closeConnections(server, 'outbox-relay');
      rounds += await sending;
      await until(() => harness.connections.length > clients, { what: 'connected again' });
      sent.push(...batch);
    }
    assert.ok(rounds >= 3);
    assert.ok(
      harness.connections.some(({ connected, reason }) => !connected && /CONNECTION[_-]FORCED/.test(reason)),
    );
    assert.deepEqual(harness.fatal, []);
    await assertDelivered(queue, sent);
  });

  test('P1 the broker is stopped and started in the middle: nothing lost, room only when it is back', async (t) => {
    const { exchange, queue, harness } = await setUp(t);
    const sent = messages(exchange, 400);
    const rest = new Set(sent);
    let stopped = false;
    const publishing = (async () => {
      while (rest.size > 0) {
        await until(() => harness.publisher.room() > 0, { what: 'room', timeoutMs: 60_000 });
        const batch = [...rest].slice(0, stopped ? 100 : 5);
        const outcomes = await harness.send(batch, 60_000).catch((error: unknown) => error as Error);
        if (outcomes instanceof Error) continue;
        for (const [at, each] of batch.entries()) if (outcomes[at]?.kind === 'durable') rest.delete(each);
      }
    })();
    await until(() => rest.size < 350, { what: 'some are durable' });
    await server.stop('SIGKILL');
    stopped = true;
    await until(() => harness.connections.at(-1)?.connected === false, { what: 'the loss is noticed' });
    assert.equal(harness.publisher.room(), 0);
    await server.start();
    await publishing;
    assert.deepEqual(harness.fatal, []);
    assert.ok(harness.connections.at(-1)?.connected);
    const ids = new Set(
      (await readQueue(server.url, queue.queue)).map(({ properties }) => properties.messageId as string),
    );
    assert.deepEqual(
      sent.filter(({ id }) => !ids.has(id)),
      [],
    );
  });

  test('P1 half-open: past the confirm deadline everything is unknown, on a new connection all arrive', async (t) => {
    const proxy = await Proxy.start(server.url);
    t.after(async () => await proxy.close());
    const urls = (): string[] => [proxy.url(server.url)];
    const { exchange, queue, harness } = await setUp(t, { urls, confirmTimeoutMs: 1_000 });
    const sent = messages(exchange, 60);
    await harness.sendUntilDurable(sent.slice(0, 10));
    proxy.blackHole();
    const startedAt = performance.now();
    const outcomes = harness.handOver(50, sent.slice(10));
    await until(() => outcomes.size === 50, { what: 'outcomes behind a black hole' });
    const tookMs = performance.now() - startedAt;
    assert.ok(tookMs > 900 && tookMs < 4_000, `${tookMs} ms`);
    assert.deepEqual([...new Set([...outcomes.values()].map(({ kind }) => kind))], ['unknown']);
    assert.equal(harness.publisher.room(), 0);
    assert.match(harness.connections.at(-1)?.reason ?? '', /no confirm within 1000 ms/);
    proxy.heal();
    proxy.cut();
    await harness.sendUntilDurable(sent.slice(10));
    await assertDelivered(queue, sent);
  });

  test('P1 a stall in the middle of the confirms: no false answer', async (t) => {
    const proxy = await Proxy.start(server.url);
    t.after(async () => await proxy.close());
    const urls = (): string[] => [proxy.url(server.url)];
    const { exchange, queue, harness } = await setUp(t, { urls, confirmTimeoutMs: 1_000 });
    await harness.sendUntilDurable(messages(exchange, 1));
    // A confirm has 21 bytes: three pass, the fourth is cut in the middle of its frame.
    proxy.stallAfter(3 * 21 + 10);
    const answered = messages(exchange, 3);
    for (const each of answered) assert.deepEqual(codes(await harness.send([each])), ['durable']);
    const cut = messages(exchange, 50);
    assert.ok((await harness.send(cut)).every(({ kind }) => kind === 'unknown'));
    proxy.heal();
    proxy.cut();
    await harness.sendUntilDurable(cut);
    await assertDelivered(queue, [...answered, ...cut]);
  });

  test('P10 a message above the limit of the broker is refused for good, its neighbours arrive', async (t) => {
    const { exchange, queue, harness } = await setUp(t);
    const tooLarge = message(exchange, { body: Buffer.alloc(MAX_MESSAGE_BYTES + 1) });
    const good = messages(exchange, 30);
    const mixed = [...good.slice(0, 15), tooLarge, ...good.slice(15)];
    const first = await harness.send(mixed);
    const rest = mixed.filter((_, at) => first[at]?.kind === 'unknown');
    const second = await harness.send(rest);
    assert.deepEqual(
      codes(second),
      rest.map((each) => (each === tooLarge ? 'message-too-large' : 'durable')),
    );
    assert.deepEqual(codes(await harness.send([tooLarge])), ['message-too-large']);
    assert.equal(harness.connections.length, 1, 'the connection is kept');
    await assertDelivered(queue, good);
  });

  test('P10 an exchange that the user may not write to hurts only its own messages', async (t) => {
    const { exchange, queue, harness: owner } = await setUp(t);
    const forbidden = uniqueName('forbidden');
    const other = await bindQueue({ url: server.url, exchange: forbidden });
    t.after(async () => await other.drop());
    await server.ctl('add_user', 'writer', 'p%ss wörd');
    await server.ctl('set_permissions', '-p', '/', 'writer', '', '^exchange', '^forbidden');
    const url = server.url.replace('guest:guest', `writer:${encodeURIComponent('p%ss wörd')}`);
    const harness = await Harness.connected(rabbitmqConfig(url, { declare: true }));
    t.after(async () => await harness.close());
    const bad = messages(forbidden, 3);
    const good = messages(exchange, 30);
    const first = await harness.send([...good.slice(0, 10), ...bad, ...good.slice(10)]);
    assert.ok(
      first.every(({ kind }) => kind !== 'rejected'),
      'nobody is blamed without proof',
    );
    await harness.sendUntilDurable(good.filter((_, at) => first[at < 10 ? at : at + 3]?.kind !== 'durable'));
    const again = await harness.send([...bad, ...messages(exchange, 20)]);
    assert.deepEqual(codes(again.slice(0, 3)), ['access-refused', 'access-refused', 'access-refused']);
    assert.deepEqual([...new Set(codes(again.slice(3)))], ['durable']);
    assert.ok(again.slice(0, 3).every((each) => each.kind === 'rejected' && !each.permanent));
    await server.ctl('set_permissions', '-p', '/', 'writer', '', '.*', '');
    await harness.sendUntilDurable(bad);
    await assertDelivered(other, bad);
    await assertDelivered(queue, good);
    assert.deepEqual(owner.fatal, []);
  });

  test('P10 a routing key that the user may not use is a route of its own: others of the exchange go together', async (t) => {
    const { exchange, queue } = await setUp(t);
    await server.ctl('add_user', 'restricted', 'secret');
    await server.ctl('set_permissions', '-p', '/', 'restricted', '.*', '.*', '.*');
    await server.ctl('set_topic_permissions', '-p', '/', 'restricted', exchange, '^key', '.*');
    const url = server.url.replace('guest:guest', 'restricted:secret');
    const harness = await Harness.connected(rabbitmqConfig(url));
    t.after(async () => await harness.close());
    const bad = message(exchange, { key: 'forbidden', routingKey: 'forbidden' });
    const good = messages(exchange, 30);
    await harness.send([bad, ...good]);
    assert.deepEqual(codes(await harness.send([bad])), [ROUTE_REFUSED]);
    await harness.sendUntilDurable(good);
    const [again] = await harness.send([bad]);
    assert.ok(again?.kind === 'rejected' && !again.permanent && again.missingDestination === true);
    await assertDelivered(queue, good);
  });
});

async function closeConnections(server: RabbitmqServer, name: string): Promise<void> {
  await until(
    async () => {
      const lines = (await server.ctl('list_connections', 'pid', 'client_properties')).split('\n');
      const ours = lines
        .filter((line) => line.includes(`"${name}"`))
        .map((line) => line.split('\t')[0] as string);
      for (const pid of ours) await server.ctl('close_connection', pid, 'closed by the test');
      return ours.length > 0;
    },
    { what: `a connection of ${name}`, timeoutMs: 30_000 },
  );
}

async function assertDelivered(queue: BoundQueue, expected: readonly Message[]): Promise<string[]> {
  const ids = (await queue.readAll()).map(({ properties }) => properties.messageId as string);
  const seen = new Set(ids);
  assert.deepEqual(
    expected.filter(({ id }) => !seen.has(id)),
    [],
    'said to be durable, not in the queue',
  );
  return ids;
}
