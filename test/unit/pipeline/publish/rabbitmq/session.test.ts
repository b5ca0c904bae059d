import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { TestContext } from 'node:test';
import type { RabbitmqConfig } from '../../../../../src/config/config.ts';
import type { Message } from '../../../../../src/pipeline/envelope/message.ts';
import type { Outcome } from '../../../../../src/pipeline/publish/publisher.ts';
import type { Connection } from '../../../../../src/pipeline/publish/rabbitmq/connection.ts';
import { Session } from '../../../../../src/pipeline/publish/rabbitmq/session.ts';
import type { SessionOptions } from '../../../../../src/pipeline/publish/rabbitmq/session.ts';
import { Suspects } from '../../../../../src/pipeline/publish/rabbitmq/suspects.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';

const TIMEOUT_MS = 30_000;
const CONFIRM_BYTES = 21;

/** A connection on which the test plays the broker. */
class FakeBroker extends EventEmitter {
  readonly connection = {
    stream: Object.assign(new EventEmitter(), { write: () => true, writableLength: 0 }),
    frameMax: 131_072,
    rest: Buffer.alloc(0),
    recvFrame: (): unknown => false,
    sentSinceLastCheck: false,
  };
  destroyed = false;
  private channels = 0;

  createConfirmChannel(): Promise<EventEmitter> {
    return Promise.resolve(this.channel());
  }

  channel(): EventEmitter {
    return Object.assign(new EventEmitter(), { ch: ++this.channels });
  }

  /** The numbers of all channels. */
  opened(): number[] {
    return Array.from({ length: this.channels }, (_, at) => at + 1);
  }

  confirm(tag: number, channel = 1): void {
    const frame = Buffer.alloc(CONFIRM_BYTES);
    frame[0] = 1;
    frame.writeUInt16BE(channel, 1);
    frame.writeUInt32BE(13, 3);
    frame.writeUInt16BE(60, 7);
    frame.writeUInt16BE(80, 9);
    frame.writeBigUInt64BE(BigInt(tag), 11);
    frame[20] = 0xce;
    this.connection.rest = frame;
    this.connection.recvFrame();
  }
}

function setUp(t: TestContext, over: Partial<SessionOptions> = {}) {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const broker = new FakeBroker();
  let nowMs = 0;
  const settled: [string, string][] = [];
  const heldUp: string[] = [];
  const lost: string[] = [];
  const suspects = over.suspects ?? new Suspects();
  const session = new Session({
    config: { confirmTimeoutMs: TIMEOUT_MS } as RabbitmqConfig,
    connection: {
      model: broker,
      confirms: broker.channel(),
      where: 'test',
      destroy: () => (broker.destroyed = true),
    } as unknown as Connection,
    suspects,
    now: () => nowMs,
    mayWrite: () => true,
    settle: ({ message }, outcome) => settled.push([message.id, codeOf(outcome)]),
    onReady: () => undefined,
    onLost: (reason) => lost.push(reason),
    onFatal: assert.fail,
    onHeldUp: ({ id }) => heldUp.push(id),
    aloneAtATime: 1,
    ...over,
  });
  const send = (...ids: string[]): Message[] =>
    ids.map((id) => {
      const message = makeMessage({ destination: '', id });
      const refusal = session.send({
        message,
        onOutcome: () => undefined,
        sentAtMs: nowMs,
        verdict: undefined,
      });
      assert.equal(refusal, undefined);
      return message;
    });
  /** Time passes, with looks at the deadline. */
  const pass = (ms: number): void => {
    for (let left = ms; left > 0; left -= TIMEOUT_MS / 10) {
      nowMs += TIMEOUT_MS / 10;
      t.mock.timers.tick(TIMEOUT_MS / 10);
    }
  };
  /** Time in which the process stood still: one look at the end. */
  const stop = (ms: number): void => {
    nowMs += ms;
    t.mock.timers.tick(TIMEOUT_MS / 10);
  };
  return { broker, session, suspects, send, pass, stop, settled, heldUp, lost };
}

function codeOf(outcome: Outcome): string {
  if (outcome.kind === 'rejected') return `rejected: ${outcome.code}`;
  return outcome.kind === 'durable' ? 'durable' : outcome.code;
}

describe('session of RabbitMQ', () => {
  test('P4 a queue that does not confirm costs its own message alone, and the connection stays', (t) => {
    const { broker, send, pass, settled, heldUp, lost } = setUp(t);
    send('stuck', 'a');
    broker.confirm(2);
    pass(TIMEOUT_MS);
    send('b');
    assert.deepEqual(settled.splice(0), [['a', 'durable']]);
    pass(2 * (TIMEOUT_MS / 10));
    assert.deepEqual(settled.splice(0), [['stuck', 'confirm-timeout']]);
    assert.deepEqual(heldUp, ['stuck'], 'to be sent elsewhere');
    broker.confirm(1);
    broker.confirm(3);
    assert.deepEqual(settled, [['b', 'durable']]);
    pass(TIMEOUT_MS);
    assert.deepEqual(lost, []);
  });

  test('P1 with no answer to anything later the connection is torn down; each that it may be goes apart', (t) => {
    const { broker, send, pass, settled, heldUp, lost } = setUp(t);
    send('early');
    broker.confirm(1);
    pass(TIMEOUT_MS / 10);
    send('oldest', 'behind it');
    pass(TIMEOUT_MS);
    assert.equal(settled.length, 1);
    pass(2 * (TIMEOUT_MS / 10));
    assert.deepEqual(settled.slice(1), [
      ['oldest', 'confirm-timeout'],
      ['behind it', 'confirm-timeout'],
    ]);
    assert.deepEqual(heldUp, ['oldest', 'behind it'], 'who it is shows when they are alone');
    assert.ok(broker.destroyed);
    assert.match(lost[0] ?? '', /^no confirm within 30000 ms\. Look for a queue/);
  });

  test('P1 one that was passed is given up, one behind everything that was answered is not: torn down in its own time', (t) => {
    const { broker, send, pass, settled, lost } = setUp(t);
    send('stuck', 'a');
    broker.confirm(2);
    pass(5 * (TIMEOUT_MS / 10));
    send('unanswered');
    pass(7 * (TIMEOUT_MS / 10));
    assert.deepEqual(settled.splice(0), [
      ['a', 'durable'],
      ['stuck', 'confirm-timeout'],
    ]);
    assert.deepEqual(lost, []);
    pass(5 * (TIMEOUT_MS / 10));
    assert.deepEqual(settled, [['unanswered', 'confirm-timeout']]);
    assert.equal(lost.length, 1);
  });

  test('P4 after the process stood still, answers that wait to be read count', (t) => {
    const { broker, send, pass, stop, settled, heldUp, lost } = setUp(t);
    send('a', 'b', 'c');
    broker.confirm(2);
    stop(10 * TIMEOUT_MS);
    assert.deepEqual([heldUp, lost], [[], []]);
    broker.confirm(1);
    broker.confirm(3);
    pass(TIMEOUT_MS);
    assert.deepEqual([...new Set(settled.map(([, code]) => code))], ['durable']);
  });

  test('P4 a broker that blocks publishers has said that it will not answer: nothing is given up', (t) => {
    const { broker, send, pass, settled, lost } = setUp(t);
    send('stuck', 'a');
    broker.confirm(2);
    broker.emit('blocked');
    pass(3 * TIMEOUT_MS);
    assert.deepEqual(settled.splice(0), [['a', 'durable']]);
    broker.emit('unblocked');
    pass(TIMEOUT_MS);
    assert.deepEqual([settled, lost], [[], []]);
  });

  test('P10 where each message is alone on a channel, who is late is known, and nobody waits for another', async (t) => {
    const { broker, send, pass, settled, heldUp, lost } = setUp(t, {
      suspects: new Suspects(true),
      aloneAtATime: 2,
    });
    send('stuck', 'a', 'b');
    await setImmediate();
    assert.deepEqual(broker.opened(), [1, 2, 3], 'two channels besides the first');
    broker.confirm(1, 3);
    broker.confirm(2, 3);
    assert.deepEqual(settled.splice(0), [
      ['a', 'durable'],
      ['b', 'durable'],
    ]);
    pass(TIMEOUT_MS);
    send('late comer');
    pass(2 * (TIMEOUT_MS / 10));
    assert.deepEqual(heldUp, ['stuck']);
    assert.deepEqual(settled, [
      ['stuck', 'confirm-timeout'],
      ['late comer', 'confirm-timeout'],
    ]);
    assert.equal(lost.length, 1);
  });

  test('P10 after a crash nothing else is on the connection, however many channels there may be', async (t) => {
    const suspects = new Suspects(true);
    suspects.connectionClosed({ kind: 'some-message' }, [
      makeMessage({ destination: '', id: 'x' }),
      makeMessage({ destination: '', id: 'y' }),
    ]);
    const { broker, send, settled } = setUp(t, { suspects, aloneAtATime: 2 });
    send('a', 'b', 'c', 'd');
    await setImmediate();
    assert.deepEqual(broker.opened(), [1, 2]);
    for (const tag of [1, 2]) broker.confirm(tag, 2);
    send('e');
    await setImmediate();
    assert.deepEqual(broker.opened(), [1, 2, 3], 'until each that it may have been was answered');
    for (const tag of [3, 4]) broker.confirm(tag, 2);
    broker.confirm(1, 3);
    assert.deepEqual(settled.map(([id]) => id).toSorted(), ['a', 'b', 'c', 'd', 'e']);
  });

  test('P10 a crash inside RabbitMQ with one message outstanding: unknown, and apart from the others', (t) => {
    const crash = Object.assign(new Error('INTERNAL_ERROR'), { code: 541 });
    const together = setUp(t);
    const messages = together.send('a', 'b');
    together.session.tearDown(crash);
    assert.deepEqual(together.heldUp, [], 'nobody is accused without proof');
    assert.ok(messages.every((message) => together.suspects.has(message)));
    t.mock.timers.reset();
    const alone = setUp(t);
    alone.send('a');
    alone.session.tearDown(crash);
    assert.deepEqual(alone.settled, [['a', 'internal-error']]);
    assert.deepEqual(alone.heldUp, ['a']);
  });

  test('P10 a closure that RabbitMQ explains by the message is its refusal still, and ends it', (t) => {
    const { session, send, settled, heldUp } = setUp(t);
    send('a');
    session.tearDown(Object.assign(new Error('FRAME_ERROR'), { code: 501 }));
    assert.deepEqual(settled, [['a', 'rejected: frame-error']]);
    assert.deepEqual(heldUp, []);
  });
});
