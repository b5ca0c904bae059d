import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { connect } from 'amqplib';
import type { Channel, ChannelModel } from 'amqplib';
import { bindQueue } from '../support/consume-rabbitmq.ts';
import { uniqueName } from '../support/names.ts';
import { rabbitmqService } from '../support/services.ts';
import { until } from '../support/until.ts';
import { codes, Harness, isStop, message, messages, rabbitmqConfig } from './harness.ts';

describe('RabbitMQ publisher', { timeout: 180_000 }, () => {
  let url: string;
  let admin: ChannelModel;
  let channel: Channel;

  before(async () => {
    ({ url } = await rabbitmqService());
    admin = await connect(url);
    channel = await admin.createChannel();
  });
  after(async () => await admin.close());

  /** A durable topic exchange of its own, removed with the publisher at the end. */
  async function setUp(t: { after(fn: () => Promise<void>): void }, over = {}) {
    const exchange = uniqueName('exchange');
    await channel.assertExchange(exchange, 'topic', { durable: true });
    const harness = await Harness.connected(rabbitmqConfig(url, over));
    t.after(async () => {
      await harness.close();
      await channel.deleteExchange(exchange);
    });
    return { exchange, harness };
  }

  test('P2 the message arrives as the table of parts says, byte for byte', async (t) => {
    const { exchange, harness } = await setUp(t);
    const queue = await bindQueue({ url, exchange });
    t.after(async () => await queue.drop());
    const body = Buffer.from('{"big": 9007199254740993,  "a":1, "a":2} \u{1f600}');
    const sent = [
      message(exchange, { key: 'k.1', body, headers: { trace: 'é', empty: '' } }),
      message(exchange, { key: 'k2', routingKey: 'other.route', body: Buffer.from([0, 255, 206, 128]) }),
      message(exchange, { key: null, body: null, headers: { a: 'b' } }),
      message(exchange, { body: Buffer.alloc(0) }),
      message(exchange, { body: Buffer.alloc(3_000_000, 'x') }),
    ];
    assert.deepEqual(
      codes(await harness.send(sent)),
      sent.map(() => 'durable'),
    );
    const got = await queue.readAll();
    assert.deepEqual(
      got.map(({ properties, fields }) => [properties.messageId, fields.routingKey]),
      sent.map((each) => [each.id, each.routingKey]),
    );
    for (const [at, each] of got.entries()) {
      assert.deepEqual(each.content, sent[at]?.body ?? Buffer.alloc(0));
      assert.equal(each.properties.type, 'order.placed');
      assert.equal(each.properties.contentType, 'application/json');
      assert.equal(each.properties.timestamp, 1_700_000_000);
      assert.equal(each.properties.deliveryMode, 2);
    }
    assert.deepEqual(
      got.map(({ properties }) => Object.assign({}, properties.headers)),
      [{ trace: 'é', empty: '' }, { key: 'k2' }, { a: 'b', 'null-payload': true }, {}, {}],
    );
  });

  test('P3 a lane is an ordering key; without a key every message is its own lane', async (t) => {
    const { exchange, harness } = await setUp(t);
    const { publisher } = harness;
    assert.equal(publisher.laneLimit.events, 1);
    assert.equal(
      publisher.laneOf(message(exchange, { key: 'a' })),
      publisher.laneOf(message('b', { key: 'a' })),
    );
    const [one, two] = [message(exchange, { key: null }), message(exchange, { key: null })];
    assert.notEqual(publisher.laneOf(one), publisher.laneOf(two));
  });

  test('P1 an unroutable message is never durable, and is delivered once the binding exists', async (t) => {
    const { exchange, harness } = await setUp(t);
    const queue = await bindQueue({ url, exchange, pattern: 'bound' });
    t.after(async () => await queue.drop());
    const routed = Array.from({ length: 40 }, () => message(exchange, { key: 'bound' }));
    const lost = Array.from({ length: 40 }, (_, at) => message(exchange, { key: `unbound-${at}` }));
    const mixed = routed.flatMap((each, at) => [each, lost[at] as typeof each]);
    const outcomes = await harness.send(mixed);
    for (const [at, outcome] of outcomes.entries()) {
      if (at % 2 === 0) assert.equal(outcome.kind, 'durable');
      else {
        assert.ok(outcome.kind === 'rejected' && outcome.missingDestination === true && !outcome.permanent);
        assert.equal(outcome.code, 'unroutable');
      }
    }
    await channel.bindQueue(queue.queue, exchange, '#');
    assert.equal(await harness.sendUntilDurable(lost), 1);
    const ids = (await queue.readAll()).map(({ properties }) => properties.messageId as string);
    assert.deepEqual(
      ids,
      [...routed, ...lost].map(({ id }) => id),
    );
  });

  test('P1 one id outstanding many times: none counts as durable that came back', async (t) => {
    const { exchange, harness } = await setUp(t);
    const queue = await bindQueue({ url, exchange, pattern: 'yes' });
    t.after(async () => await queue.drop());
    const twins = Array.from({ length: 60 }, (_, at) =>
      message(exchange, { id: 'same', key: `k${at}`, routingKey: at % 3 === 0 ? 'yes' : 'no' }),
    );
    const outcomes = await harness.send(twins);
    const durable = twins.filter((_, at) => outcomes[at]?.kind === 'durable').map(({ key }) => key);
    const got = (await queue.readAll()).map(({ properties }) => properties.headers?.['key'] as string);
    assert.deepEqual(durable, got);
    assert.equal(got.length, 20);
  });

  test('P10 a missing exchange hurts only its own messages, also when it is removed meanwhile', async (t) => {
    const { exchange, harness } = await setUp(t);
    const missing = uniqueName('missing');
    const queue = await bindQueue({ url, exchange });
    t.after(async () => await queue.drop());
    const good = messages(exchange, 30);
    const mixed = good.flatMap((each) => [each, message(missing)]);
    const outcomes = await harness.send(mixed);
    assert.deepEqual(
      codes(outcomes),
      mixed.map(({ destination }) => (destination === exchange ? 'durable' : 'exchange-missing')),
    );
    assert.ok(outcomes.every((each) => each.kind !== 'rejected' || each.missingDestination === true));
    assert.equal(harness.connections.length, 1, 'the connection must stay');

    await channel.assertExchange(missing, 'fanout', { durable: true });
    await channel.bindExchange(exchange, missing, '');
    const late = messages(missing, 3);
    await harness.sendUntilDurable(late);

    await channel.deleteExchange(missing);
    const removed = messages(missing, 3);
    const others = messages(exchange, 30);
    const first = await harness.send([...others.slice(0, 15), ...removed, ...others.slice(15)]);
    const beside = messages(exchange, 20);
    const again = codes(await harness.send([...removed, ...beside]));
    assert.deepEqual(
      again,
      again.map((_, at) => (at < removed.length ? 'exchange-missing' : 'durable')),
    );
    await harness.sendUntilDurable(
      others.filter((_, at) => first[at < 15 ? at : at + 3]?.kind !== 'durable'),
    );
    const ids = new Set((await queue.readAll()).map(({ properties }) => properties.messageId as string));
    for (const { id } of [...good, ...late, ...others])
      assert.ok(ids.has(id), `${id} was said to be durable`);
    for (const { id } of removed) assert.ok(!ids.has(id));
  });

  test('the default exchange needs no check: the routing key is the queue', async (t) => {
    const { exchange, harness } = await setUp(t);
    const queue = await bindQueue({ url, exchange });
    t.after(async () => await queue.drop());
    assert.deepEqual(codes(await harness.send([message('', { key: queue.queue })])), ['durable']);
    assert.equal(await queue.count(), 1);
  });

  test('an exchange is declared durable, with the type that is configured', async (t) => {
    const exchange = uniqueName('declared');
    const harness = await Harness.connected(rabbitmqConfig(url, { declare: true, exchangeType: 'fanout' }));
    t.after(async () => {
      await harness.close();
      await channel.deleteExchange(exchange);
    });
    assert.deepEqual(codes(await harness.send([message(exchange)])), ['unroutable']);
    await channel.assertExchange(exchange, 'fanout', { durable: true });
    assert.deepEqual(harness.fatal, []);
  });

  test('an exchange of another type stops with advice; nothing counts as durable', async (t) => {
    const { exchange, harness } = await setUp(t, { declare: true, exchangeType: 'direct' });
    assert.deepEqual(codes(await harness.send([message(exchange)])), ['exchange-check-failed']);
    assert.equal(harness.fatal.length, 1);
    assert.ok(isStop('rabbitmq-exchange-mismatch')(harness.fatal[0]));
  });

  test('P10 an exchange that a row has named and that is of another type is refused, and the others flow on', async (t) => {
    const { exchange, harness } = await setUp(t, {
      declare: true,
      exchangeType: 'direct',
      exchangeIsConstant: false,
    });
    const other = uniqueName('other');
    const queue = await bindQueue({ url, exchange: other, exchangeType: 'direct', pattern: 'route' });
    t.after(async () => await queue.drop());
    const [outcome, neighbour] = await harness.send([
      message(exchange),
      message(other, { routingKey: 'route' }),
    ]);
    assert.ok(outcome?.kind === 'rejected' && outcome.missingDestination === true && !outcome.permanent);
    assert.equal(outcome.code, 'rabbitmq-exchange-mismatch');
    assert.match(outcome.reason, /RABBITMQ_EXCHANGE_TYPE/);
    assert.equal(neighbour?.kind, 'durable');
    assert.deepEqual(harness.fatal, []);
  });

  test('P10 what AMQP can not carry is refused for good, and its neighbours are durable', async (t) => {
    const { exchange, harness } = await setUp(t);
    const queue = await bindQueue({ url, exchange });
    t.after(async () => await queue.drop());
    const bad = [
      message(exchange, { id: 'x'.repeat(256) }),
      message(exchange, { key: 'x'.repeat(256) }),
      message(exchange, { headers: { big: 'x'.repeat(70_000) } }),
      message(exchange, { headers: { ['n'.repeat(300)]: 'x' } }),
      message(exchange, { type: 'x'.repeat(256) }),
      message(exchange, { timestampMs: Number.NaN }),
      message(exchange, { headers: { CC: 'x' } }),
      message('x'.repeat(256)),
    ];
    const good = messages(exchange, bad.length);
    const outcomes = await harness.send(bad.flatMap((each, at) => [each, good[at] as typeof each]));
    for (const [at, outcome] of outcomes.entries()) {
      if (at % 2 === 1) assert.equal(outcome.kind, 'durable');
      else
        assert.ok(
          outcome.kind === 'rejected' && outcome.permanent && outcome.scope === 'event',
          codes([outcome])[0],
        );
    }
    assert.equal(await queue.count(), good.length);
    assert.equal(harness.connections.length, 1);
  });

  test('P10 a message that makes RabbitMQ close the whole connection is found', async (t) => {
    // A frame of headers above the agreed limit: RabbitMQ answers 501 and closes the connection.
    const { exchange, harness } = await setUp(t, { urls: () => [`${url}?frameMax=4096`] });
    const queue = await bindQueue({ url, exchange });
    t.after(async () => await queue.drop());
    const poison = message(exchange, { headers: { big: 'x'.repeat(10_000) } });
    const good = messages(exchange, 40);
    let rest = [...good.slice(0, 20), poison, ...good.slice(20)];
    const rejected: string[] = [];
    for (let round = 0; rest.length > 0; round++) {
      assert.ok(round < 5, `${rest.length} without an end`);
      const outcomes = await harness.send(rest);
      for (const [at, each] of rest.entries()) if (outcomes[at]?.kind === 'rejected') rejected.push(each.id);
      rest = rest.filter((_, at) => outcomes[at]?.kind === 'unknown');
    }
    assert.deepEqual(rejected, [poison.id]);
    const ids = new Set((await queue.readAll()).map(({ properties }) => properties.messageId as string));
    assert.equal(ids.size, good.length);
  });

  test('a nack is unknown: a full queue that refuses is tried again', async (t) => {
    const { exchange, harness } = await setUp(t);
    const full = { 'x-max-length': 5, 'x-overflow': 'reject-publish' };
    const queue = await bindQueue({ url, exchange, arguments: full });
    t.after(async () => await queue.drop());
    const sent = messages(exchange, 20);
    const outcomes = await harness.send(sent);
    assert.ok(codes(outcomes).includes('nack'));
    assert.ok(outcomes.every(({ kind }) => kind !== 'rejected'));
    const durable = sent.filter((_, at) => outcomes[at]?.kind === 'durable').map(({ id }) => id);
    assert.deepEqual(
      (await queue.readAll()).map(({ properties }) => properties.messageId as string),
      durable,
    );
    const rest = sent.filter((_, at) => outcomes[at]?.kind === 'unknown').slice(0, 3);
    assert.equal(await harness.sendUntilDurable(rest), 1);
  });

  test('P7 no more than the window is outstanding, and room is announced once for many confirms', async (t) => {
    const { exchange, harness } = await setUp(t, { window: 50 });
    const queue = await bindQueue({ url, exchange });
    t.after(async () => await queue.drop());
    await until(() => harness.roomCalls === 1, { what: 'room announced after connecting' });
    assert.equal(harness.publisher.room(), 50);
    const outcomes = harness.handOver(50, messages(exchange, 50));
    assert.equal(harness.publisher.room(), 0);
    await until(() => outcomes.size === 50 && harness.roomCalls > 1, { what: 'room again' });
    assert.ok(harness.roomCalls < 20, `${harness.roomCalls} calls for 50 confirms`);
    assert.equal(harness.publisher.room(), 50);
  });

  test('close waits for what is outstanding, reports the rest as unknown, and leaves no socket or timer', async (t) => {
    const { exchange, harness } = await setUp(t);
    const queue = await bindQueue({ url, exchange });
    t.after(async () => await queue.drop());
    await harness.whenRoom();
    const resourcesBefore = process.getActiveResourcesInfo().filter((name) => name !== 'Immediate').length;
    const outcomes = harness.handOver(20, messages(exchange, 20));
    await Promise.all([harness.publisher.close(5_000), harness.publisher.close(5_000)]);
    assert.deepEqual(
      codes([...outcomes.values()]),
      Array.from({ length: 20 }, () => 'durable'),
    );
    assert.equal(harness.publisher.room(), 0);
    const late = harness.handOver(1, [message(exchange)]);
    await until(() => late.size === 1, { what: 'an outcome after close' });
    assert.equal([...late.values()][0]?.kind, 'unknown');
    await until(() => process.getActiveResourcesInfo().length < resourcesBefore, {
      what: 'the socket is gone',
    });

    const hasty = await Harness.connected(rabbitmqConfig(url));
    const cut = hasty.handOver(20, messages(exchange, 20));
    await hasty.publisher.close(0);
    assert.equal(cut.size, 20);
  });
});
