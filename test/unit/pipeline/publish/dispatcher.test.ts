import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Dispatcher } from '../../../../src/pipeline/publish/dispatcher.ts';
import type { Verdict } from '../../../../src/pipeline/publish/lanes.ts';
import { DURABLE, type Outcome } from '../../../../src/pipeline/publish/publisher.ts';
import { messageOf } from '../builders.ts';
import { ScriptedPublisher } from './scripted-publisher.ts';

const UNKNOWN: Outcome = { kind: 'unknown', code: 'away', reason: '' };

function setUp(): {
  publisher: ScriptedPublisher;
  dispatcher: Dispatcher;
  durable: number[];
  failures: string[];
} {
  const publisher = new ScriptedPublisher();
  const durable: number[] = [];
  const failures: string[] = [];
  const dispatcher = new Dispatcher({
    publisher,
    mayStart: () => true,
    policy: { maxAttempts: 2, topicGraceMs: 0, maxStuckEvents: 100, retryDelayMs: () => 5 },
    onVerdicts: (verdicts: readonly Verdict[]) => {
      for (const { kind, message } of verdicts) if (kind === 'durable') durable.push(message.event.seq);
    },
    onFailure: ({ code }) => failures.push(code),
  });
  return { publisher, dispatcher, durable, failures };
}

describe('Dispatcher', () => {
  it('sends what one turn brought in one call, and the next batch grows while that is in flight', async () => {
    const { publisher, dispatcher, durable } = setUp();
    for (const seq of [1, 2, 3]) dispatcher.add(messageOf(seq));
    await Promise.resolve();
    for (const seq of [4, 5]) dispatcher.add(messageOf(seq));
    await Promise.resolve();
    assert.deepEqual(publisher.calls, [[1, 2, 3]]);
    publisher.answerAll();
    await Promise.resolve();
    publisher.answerAll();
    await dispatcher.idle();
    assert.deepEqual(publisher.calls, [
      [1, 2, 3],
      [4, 5],
    ]);
    assert.deepEqual(durable, [1, 2, 3, 4, 5]);
  });

  it('takes answers that come inside publish', async () => {
    const { publisher, dispatcher, durable } = setUp();
    publisher.answerAtOnce = () => DURABLE;
    for (let seq = 1; seq <= 25; seq++) dispatcher.add(messageOf(seq));
    await dispatcher.idle();
    assert.deepEqual(
      durable,
      Array.from({ length: 25 }, (_, i) => i + 1),
    );
    assert.equal(dispatcher.size, 0);
  });

  it('P7 waits for room, and goes on when it is told of it', async () => {
    const { publisher, dispatcher } = setUp();
    publisher.roomLeft = 0;
    for (const seq of [1, 2, 3]) dispatcher.add(messageOf(seq, { key: String(seq) }));
    await Promise.resolve();
    assert.deepEqual(publisher.calls, []);
    publisher.roomLeft = 2;
    dispatcher.schedule();
    // Room shrinks as it is used: the fake keeps it, so that the second call takes the rest.
    await Promise.resolve();
    assert.deepEqual(publisher.calls, [[1, 2], [3]]);
    publisher.answerAll();
    await dispatcher.idle();
  });

  it('P4 sends an unknown again by itself, without an event to wake it', async () => {
    const { publisher, dispatcher, durable, failures } = setUp();
    let answers = 0;
    publisher.answerAtOnce = () => (++answers < 4 ? UNKNOWN : DURABLE);
    dispatcher.add(messageOf(1));
    await dispatcher.idle();
    assert.deepEqual(publisher.calls, [[1], [1], [1], [1]]);
    assert.deepEqual([durable, failures], [[1], ['away', 'away', 'away']]);
  });

  it('P4 after a stop nothing is sent, and idle waits for what the broker has', async () => {
    const { publisher, dispatcher, durable } = setUp();
    dispatcher.add(messageOf(1));
    await Promise.resolve();
    dispatcher.add(messageOf(2));
    dispatcher.stop();
    let idle = false;
    const waiting = dispatcher.idle().then(() => (idle = true));
    await Promise.resolve();
    assert.equal(idle, false);
    publisher.answerAll(UNKNOWN);
    await waiting;
    assert.deepEqual([publisher.calls, durable, dispatcher.size], [[[1]], [], 0]);
  });

  it('P4 a stop counts what was sent before without an answer, and what never gets one', async () => {
    const { publisher, dispatcher } = setUp();
    for (const seq of [1, 2, 3]) dispatcher.add(messageOf(seq, { key: String(seq) }));
    await Promise.resolve();
    publisher.answerAll(UNKNOWN);
    dispatcher.add(messageOf(4, { key: '4' }));
    await Promise.resolve();
    dispatcher.add(messageOf(5, { key: '5' }));
    dispatcher.stop();
    assert.deepEqual(publisher.calls, [[1, 2, 3], [4]]);
    assert.equal(dispatcher.unknown, 4);
    publisher.answerAll();
    await dispatcher.idle();
    assert.equal(dispatcher.unknown, 3);
  });

  it('what is added after a stop does not hold the drain up', async () => {
    const { publisher, dispatcher } = setUp();
    dispatcher.stop();
    dispatcher.add(messageOf(1));
    assert.equal(dispatcher.size, 0);
    await dispatcher.idle();
    assert.deepEqual(publisher.calls, []);
  });

  it('an answer for a message that nobody sent is a fault of the publisher', async () => {
    const { publisher, dispatcher } = setUp();
    let answer: (() => void) | undefined;
    publisher.publish = ([message], onOutcome) => {
      answer = () => onOutcome(message as never, DURABLE);
    };
    dispatcher.add(messageOf(1));
    await Promise.resolve();
    answer?.();
    assert.throws(() => answer?.(), RangeError);
  });
});
