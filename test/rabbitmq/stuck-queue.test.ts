import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Options } from 'amqplib';
import { startRabbitmq } from '../../src/demo/services/rabbitmq.ts';
import type { RabbitmqServer } from '../../src/demo/services/rabbitmq.ts';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import { createRabbitmqPublisher } from '../../src/pipeline/publish/rabbitmq/publisher.ts';
import { bindQueue } from '../support/consume-rabbitmq.ts';
import type { BoundQueue } from '../support/consume-rabbitmq.ts';
import { uniqueName } from '../support/names.ts';
import { Driver, makeMessage } from '../support/publisher-driver.ts';
import { untilFinal } from '../support/publisher-subject.ts';
import { until } from '../support/until.ts';
import { rabbitmqConfig } from './harness.ts';

const QUORUM = { 'x-queue-type': 'quorum' };
const SUSPEND = 'ok = sys:suspend(amqqueue:get_pid(Q))';
const RESUME = 'ok = sys:resume(amqqueue:get_pid(Q))';
/** A channel that delivers to the queue crashes. */
const SPOIL =
  'persistent_term:put(pid, amqqueue:get_pid(Q)), mnesia:dirty_write(rabbit_queue, amqqueue:set_pid(Q, nobody))';
const REPAIR = 'mnesia:dirty_write(rabbit_queue, amqqueue:set_pid(Q, persistent_term:get(pid)))';

/** A broker of its own: processes of its queues are stopped here, which no client may do. */
describe('RabbitMQ publisher, one queue of several answers nothing', { timeout: 300_000 }, () => {
  let server: RabbitmqServer;

  before(async () => {
    server = await startRabbitmq();
  });
  after(async () => await server.remove());

  /** Two queues of one exchange, known to the publisher's channel. */
  async function setUp(t: TestContext, queueArguments?: Options.AssertQueue['arguments']) {
    const exchange = uniqueName('exchange');
    const bind = async (pattern: string): Promise<BoundQueue> =>
      await bindQueue({ url: server.url, exchange, pattern, arguments: queueArguments });
    const [good, stuck] = [await bind('good.#'), await bind('stuck.#')];
    t.after(async () => {
      await erlang(server, stuck, RESUME);
      await Promise.all([good.drop(), stuck.drop()]);
    });
    const driver = new Driver((events) =>
      createRabbitmqPublisher(rabbitmqConfig(server.url, { confirmTimeoutMs: 1_000 }), events),
    );
    await driver.publisher.connect(AbortSignal.timeout(30_000));
    t.after(async () => {
      driver.stop();
      await driver.publisher.close(1_000);
    });
    const send = (prefix: string, count: number): Message[] => {
      const sent = Array.from({ length: count }, (_, at) =>
        makeMessage({ destination: exchange, id: uniqueName(prefix), key: `${prefix}.${at}` }),
      );
      driver.send(sent);
      return sent;
    };
    await untilFinal(driver, [...send('good', 1), ...send('stuck', 1)]);
    return { driver, send, good, stuck };
  }

  test('P4 its keys alone wait: the connection stays, and nothing of other keys is sent twice', async (t) => {
    const { driver, send, good, stuck } = await setUp(t);
    await erlang(server, stuck, SUSPEND);
    const waiting = send('stuck', 5);
    const flowing = await flowUntil(() => driver.unknowns.length >= 20, { driver, send });
    assert.deepEqual(driver.connections, [true], 'one connection all the time');
    assert.ok(waiting.every((message) => !driver.final.has(message)));
    assert.deepEqual([...new Set(driver.unknowns.map(codeOf))], ['confirm-timeout']);
    await erlang(server, stuck, RESUME);
    await untilFinal(driver, waiting);
    assert.deepEqual([...new Set(driver.outcomes(waiting).map((outcome) => outcome?.kind))], ['durable']);
    assert.equal(await good.count(), 1 + flowing.length);
    const arrived = new Set((await stuck.readAll()).map(({ properties }) => properties.messageId as string));
    assert.deepEqual(
      waiting.filter(({ id }) => !arrived.has(id)),
      [],
    );
  });

  test('P10 a quorum queue that stops a whole channel, and so everyone, does it once', async (t) => {
    const { driver, send, stuck } = await setUp(t, QUORUM);
    await erlang(server, stuck, SUSPEND);
    // On a channel that is new to such a queue, RabbitMQ waits for it before it looks at what comes behind.
    await closeConnections(server);
    await until(() => driver.connections.at(-1) === false, { what: 'the loss is noticed' });
    const losses = (): number => driver.connections.filter((connected) => !connected).length;
    // More than RabbitMQ lets wait for a queue (32) before it reads no further.
    const waiting = send('stuck', 40);
    const beside = send('good', 40);
    await until(() => losses() === 2, { what: 'all others had to wait for them' });
    await untilFinal(driver, beside);
    const unknowns = driver.unknowns.length;
    await flowUntil(() => driver.unknowns.length >= unknowns + 2 * waiting.length, { driver, send });
    assert.equal(losses(), 2);
    assert.ok(waiting.every((message) => !driver.final.has(message)));
    await erlang(server, stuck, RESUME);
    await untilFinal(driver, waiting);
  });

  test('P10 a message over which RabbitMQ crashes is found, costs the others nothing more, and is never parked', async (t) => {
    const { driver, send, stuck } = await setUp(t);
    await erlang(server, stuck, SPOIL);
    const poison = send('stuck', 1);
    const beside = send('good', 50);
    await untilFinal(driver, beside);
    const crashes = (): number =>
      driver.unknowns.filter((outcome) => codeOf(outcome) === 'internal-error').length;
    const atFirst = crashes();
    const losses = (): number => driver.connections.filter((connected) => !connected).length;
    const lost = losses();
    await flowUntil(() => crashes() >= atFirst + 2, { driver, send });
    assert.ok(losses() <= 2, `${lost}, then ${losses()} closures of the connection of all others`);
    assert.ok(!driver.final.has(poison[0] as Message));
    await erlang(server, stuck, REPAIR);
    await untilFinal(driver, poison);
    assert.equal(driver.final.get(poison[0] as Message)?.kind, 'durable');
  });
});

interface Flow {
  readonly driver: Driver;
  readonly send: (prefix: string, count: number) => Message[];
}

/** Other keys flow: each batch is answered before the next one. */
async function flowUntil(enough: () => boolean, { driver, send }: Flow): Promise<Message[]> {
  const flowing: Message[] = [];
  while (!enough()) {
    const batch = send('good', 20);
    await untilFinal(driver, batch, 10_000);
    flowing.push(...batch);
  }
  return flowing;
}

function codeOf(outcome: Driver['unknowns'][number]): string {
  return outcome.kind === 'unknown' ? outcome.code : outcome.kind;
}

/** `expression` of Erlang, in which `Q` is the queue. */
async function erlang(server: RabbitmqServer, { queue }: BoundQueue, expression: string): Promise<void> {
  const find = `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"${queue}">>))`;
  await server.ctl('eval', `${find}, ${expression}.`);
}

async function closeConnections(server: RabbitmqServer): Promise<void> {
  const lines = (await server.ctl('list_connections', 'pid', 'client_properties')).split('\n');
  const ours = lines.filter((line) => line.includes('"outbox-relay"'));
  for (const line of ours)
    await server.ctl('close_connection', line.split('\t')[0] as string, 'closed by the test');
}
