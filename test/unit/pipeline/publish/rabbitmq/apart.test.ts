import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Message } from '../../../../../src/pipeline/envelope/message.ts';
import { DURABLE, LEASE_ENDED } from '../../../../../src/pipeline/publish/publisher.ts';
import type { Outcome } from '../../../../../src/pipeline/publish/publisher.ts';
import { Apart } from '../../../../../src/pipeline/publish/rabbitmq/apart.ts';
import type { ApartSession, SessionEvents } from '../../../../../src/pipeline/publish/rabbitmq/apart.ts';
import type { Entry } from '../../../../../src/pipeline/publish/rabbitmq/confirm-window.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';
import { until } from '../../../../support/until.ts';

const UNKNOWN: Outcome = { kind: 'unknown', code: 'confirm-timeout', reason: 'x' };

/** A connection on which the test answers. */
class FakeSession implements ApartSession {
  ready = true;
  ended = false;
  readonly sent: Entry[] = [];
  refusal: Outcome | undefined;
  private readonly events: SessionEvents;

  constructor(events: SessionEvents) {
    this.events = events;
  }

  send(entry: Entry): Outcome | undefined {
    if (this.refusal !== undefined) return this.refusal;
    this.sent.push(entry);
    return undefined;
  }

  flush(): void {
    assert.ok(this.ready);
  }

  answer(outcome: Outcome): void {
    for (const entry of this.sent.splice(0)) this.events.settle(entry, outcome);
  }

  becomeReady(): void {
    this.ready = true;
    this.events.onReady();
  }

  end(): Promise<void> {
    this.ended = true;
    return Promise.resolve();
  }

  tearDown(): void {
    this.ended = true;
    const [oldest] = this.sent;
    if (oldest !== undefined) this.events.onHeldUp(oldest.message);
    this.answer(UNKNOWN);
    this.events.onLost('lost');
  }
}

function setUp(t: TestContext) {
  const sessions: FakeSession[] = [];
  const settled: string[] = [];
  const told: string[] = [];
  const abort = new AbortController();
  const failure: { next: Error | undefined } = { next: undefined };
  const apart = new Apart({
    open: (events) => {
      if (failure.next !== undefined) return Promise.reject(failure.next);
      sessions.push(new FakeSession(events));
      return Promise.resolve(sessions.at(-1) as FakeSession);
    },
    settle: ({ message }, outcome) => settled.push(`${message.id} ${codeOf(outcome)}`),
    onFirst: ({ id }) => told.push(id),
    signal: abort.signal,
    goodbyeMs: 100,
  });
  const close = async (error?: Error): Promise<void> => {
    abort.abort();
    await apart.close(error);
  };
  t.after(async () => await close());
  const send = (...messages: Message[]): void => {
    for (const message of messages)
      apart.send({ message, onOutcome: () => undefined, sentAtMs: 0, verdict: undefined });
  };
  /** The session on which so many are outstanding. */
  const outstanding = async (count: number): Promise<FakeSession> => {
    await until(() => sessions.at(-1)?.sent.length === count, { what: `${count} sent` });
    return sessions.at(-1) as FakeSession;
  };
  return { apart, sessions, settled, told, failure, close, send, outstanding };
}

function codeOf(outcome: Outcome): string {
  return outcome.kind === 'durable' ? 'durable' : outcome.code;
}

function messageNamed(id: string): Message {
  return makeMessage({ destination: 'x', id });
}

function idsOf(session: FakeSession): string[] {
  return session.sent.map(({ message: { id } }) => id);
}

describe('messages apart', () => {
  test('P4 what held a connection up goes over another one until it is answered, and that one is then ended', async (t) => {
    const { apart, settled, told, send, outstanding } = setUp(t);
    const [stuck, other] = [messageNamed('stuck'), messageNamed('other')];
    assert.ok(!apart.has(stuck));
    apart.add(stuck);
    assert.deepEqual([apart.has(stuck), apart.has(other)], [true, false]);
    send(stuck);
    const first = await outstanding(1);
    first.answer(UNKNOWN);
    assert.ok(apart.has(stuck) && !first.ended, 'the broker answered: it may take the next');
    send(stuck);
    (await outstanding(1)).answer(DURABLE);
    assert.deepEqual(settled, ['stuck confirm-timeout', 'stuck durable']);
    assert.ok(!apart.has(stuck) && first.ended);
    assert.deepEqual(told, ['stuck'], 'told once');
  });

  test('P10 who held it up again goes last: those behind had no chance', async (t) => {
    const { apart, send, outstanding } = setUp(t);
    const [stuck, behind] = [messageNamed('stuck'), messageNamed('behind')];
    for (const each of [stuck, behind]) apart.add(each);
    send(stuck, behind);
    const first = await outstanding(2);
    assert.deepEqual(idsOf(first), ['stuck', 'behind']);
    first.tearDown();
    send(stuck, behind);
    const second = await outstanding(2);
    assert.notEqual(second, first);
    assert.deepEqual(idsOf(second), ['behind', 'stuck']);
  });

  test('nothing is settled from inside the call, also not what is refused at once', async (t) => {
    const { apart, sessions, settled, send, outstanding } = setUp(t);
    const [a, b] = [messageNamed('a'), messageNamed('b')];
    for (const each of [a, b]) apart.add(each);
    send(a);
    (await outstanding(1)).answer(UNKNOWN);
    (sessions[0] as FakeSession).refusal = LEASE_ENDED;
    settled.splice(0);
    send(a, b);
    assert.deepEqual(settled, []);
    await until(() => settled.length === 2, { what: 'the refusals' });
    assert.deepEqual(settled, ['a lease-ended', 'b lease-ended']);
  });

  test('P1 without a connection they are unknown, and tried again', async (t) => {
    const { apart, settled, failure, send, outstanding } = setUp(t);
    const a = messageNamed('a');
    apart.add(a);
    failure.next = Object.assign(new Error('refused'), { code: 'ECONNREFUSED' });
    send(a);
    await until(() => settled.length === 1, { what: 'the outcome' });
    assert.deepEqual(settled, ['a connection-refused']);
    failure.next = undefined;
    send(a);
    (await outstanding(1)).answer(DURABLE);
    assert.equal(settled.at(-1), 'a durable');
  });

  test('P7 while the connection is not ready they wait; when it is lost they are unknown as well', async (t) => {
    const { apart, settled, send, outstanding } = setUp(t);
    const [a, b, c] = [messageNamed('a'), messageNamed('b'), messageNamed('c')];
    for (const each of [a, b, c]) apart.add(each);
    send(a);
    const session = await outstanding(1);
    session.ready = false;
    send(b);
    await Promise.resolve();
    session.becomeReady();
    assert.deepEqual(idsOf(session), ['a', 'b']);
    session.ready = false;
    send(c);
    await Promise.resolve();
    session.tearDown();
    assert.deepEqual(settled.toSorted(), ['a confirm-timeout', 'b confirm-timeout', 'c connection-lost']);
  });

  test('close: nothing stays without an outcome, whether it is sent, waits, or comes later', async (t) => {
    const { apart, sessions, settled, close, send } = setUp(t);
    const [a, b] = [messageNamed('a'), messageNamed('b')];
    for (const each of [a, b]) apart.add(each);
    send(a);
    await close(new Error('closed'));
    assert.deepEqual(settled, ['a connection-lost']);
    send(b);
    await until(() => settled.length === 2, { what: 'the outcome of one that came later' });
    assert.deepEqual(sessions, []);
  });
});
