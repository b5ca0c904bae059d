import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { viewOf } from '../../../../src/pipeline/capture/byte-range.ts';
import type { Message } from '../../../../src/pipeline/envelope/message.ts';
import type { Delivery } from '../../../../src/pipeline/publish/lane.ts';
import { Lanes, type LanePolicy, type Verdict } from '../../../../src/pipeline/publish/lanes.ts';
import { DURABLE, type Outcome } from '../../../../src/pipeline/publish/publisher.ts';
import { ROUTE_REFUSED } from '../../../../src/pipeline/publish/missing-targets.ts';
import { messageOf } from '../builders.ts';

const UNKNOWN: Outcome = { kind: 'unknown', code: 'away', reason: 'no answer' };
const BUSY: Outcome = { kind: 'rejected', code: 'busy', reason: 'later', permanent: false, scope: 'event' };
const TOO_LARGE: Outcome = { ...BUSY, code: 'too-large', permanent: true, scope: 'group' };
const MISSING: Outcome = { ...BUSY, code: 'topic-missing', missingDestination: true };
const UNROUTABLE: Outcome = { ...MISSING, code: 'unroutable' };

function lanesOf(
  policy: Partial<LanePolicy> = {},
  laneOf: (destination: string, key: string | null) => string | undefined = (destination, key) =>
    `${destination} ${key}`,
): Lanes {
  return new Lanes(
    {
      laneLimit: { events: 100, bytes: 1_000_000 },
      maxAttempts: 5,
      topicGraceMs: 60_000,
      maxStuckEvents: 1_000,
      retryDelayMs: () => 100,
      ...policy,
    },
    { laneOf: ({ destination, key }) => laneOf(destination, key) },
  );
}

function seqsOf(list: readonly (Delivery | Verdict)[]): number[] {
  return list.map(({ message }) => message.event.seq);
}

function bodiesOf(list: readonly (Delivery | Verdict)[]): (string | undefined)[] {
  return list.map(({ message }) => viewOf(message.body)?.toString());
}

/** Takes what there is at `nowMs` and answers all of it alike. */
function round(lanes: Lanes, outcome: Outcome, nowMs: number): { taken: number[]; verdicts: Verdict[] } {
  const taken = lanes.take(1_000, 1e9, nowMs);
  return {
    taken: seqsOf(taken),
    verdicts: taken.flatMap((delivery) => lanes.answer(delivery, outcome, nowMs)),
  };
}

describe('Lanes', () => {
  it('P10 halving finds the poison record; the others become durable in their order', () => {
    const lanes = lanesOf();
    for (let seq = 1; seq <= 64; seq++) lanes.add(messageOf(seq));
    const durable: number[] = [];
    const parked: number[] = [];
    let requests = 0;
    while (lanes.size > 0) {
      const taken = lanes.take(1_000, 1e9, 0);
      assert.ok(taken.length > 0, 'a probe waits for nothing');
      requests++;
      const outcome = seqsOf(taken).includes(37) ? TOO_LARGE : DURABLE;
      for (const verdict of taken.flatMap((delivery) => lanes.answer(delivery, outcome, 0)))
        (verdict.kind === 'durable' ? durable : parked).push(verdict.message.event.seq);
    }
    assert.deepEqual(parked, [37]);
    assert.deepEqual(
      durable,
      [...Array(64).keys()].map((i) => i + 1).filter((seq) => seq !== 37),
    );
    assert.ok(requests < 30, `${requests} requests for one culprit among 64`);
  });

  it('P4 an outage is never an attempt, however long', () => {
    const lanes = lanesOf({ maxAttempts: 2 });
    lanes.add(messageOf(1));
    let nowMs = 0;
    for (let i = 0; i < 1_000; i++) {
      assert.deepEqual(round(lanes, UNKNOWN, nowMs), { taken: [1], verdicts: [] });
      assert.deepEqual(round(lanes, UNKNOWN, nowMs).taken, [], 'not before its delay');
      nowMs = lanes.nextRetryMs() as number;
    }
    assert.equal(round(lanes, BUSY, nowMs).verdicts.length, 0);
    const { verdicts } = round(lanes, BUSY, nowMs + 100);
    assert.deepEqual(
      verdicts.map((v) => v.kind === 'park' && [v.code, v.reason, v.attempts]),
      [['busy', 'later', 2]],
    );
    assert.equal(lanes.size, 0);
  });

  it('the delay grows with failures in a row and begins anew after a success', () => {
    const failures: number[] = [];
    const lanes = lanesOf({ retryDelayMs: (count) => failures.push(count) });
    lanes.add(messageOf(1));
    lanes.add(messageOf(2));
    let nowMs = 0;
    for (const outcome of [UNKNOWN, UNKNOWN, UNKNOWN]) round(lanes, outcome, (nowMs += 1_000));
    const [first, second] = lanes.take(10, 1e9, (nowMs += 1_000)) as [Delivery, Delivery];
    lanes.answer(second, UNKNOWN, nowMs);
    assert.deepEqual(seqsOf(lanes.answer(first, DURABLE, nowMs)), [1]);
    round(lanes, DURABLE, (nowMs += 1_000));
    assert.deepEqual(failures, [0, 1, 2, 3]);
    assert.equal(lanes.size, 0);
  });

  it('P10 a missing topic is asked again for its grace, then its lane is given up at once', () => {
    const lanes = lanesOf({ laneLimit: { events: 1, bytes: 1e6 } });
    for (const seq of [1, 2, 3]) lanes.add(messageOf(seq));
    lanes.add(messageOf(4, { destination: 'other' }));
    let nowMs = 0;
    const { verdicts } = round(lanes, MISSING, nowMs);
    assert.deepEqual(verdicts, []);
    for (; nowMs < 59_000; nowMs += 1_000) {
      const delivery = lanes.take(1, 1e9, nowMs).find(({ message }) => message.destination === 'topic');
      if (delivery) assert.deepEqual(lanes.answer(delivery, MISSING, nowMs), []);
      for (const other of lanes.take(10, 1e9, nowMs)) lanes.answer(other, DURABLE, nowMs);
    }
    const given = round(lanes, MISSING, 60_001).verdicts;
    assert.deepEqual(seqsOf(given), [1, 2, 3], 'without asking for each, in order');
    assert.equal(lanes.size, 0);
  });

  it('a topic that appears in time loses nothing, and gets a whole grace the next time', () => {
    const lanes = lanesOf();
    lanes.add(messageOf(1));
    round(lanes, MISSING, 0);
    assert.deepEqual(seqsOf(round(lanes, DURABLE, 59_000).verdicts), [1]);
    lanes.add(messageOf(2));
    assert.deepEqual(round(lanes, MISSING, 70_000).verdicts, []);
    assert.deepEqual(seqsOf(round(lanes, MISSING, 130_000).verdicts), [2]);
  });

  it('P10 a missing route concerns its routing key alone', () => {
    const lanes = lanesOf({ topicGraceMs: 1_000 }, (_, key) => String(key));
    lanes.add(messageOf(1, { key: 'a', routingKey: 'nowhere' }));
    lanes.add(messageOf(2, { key: 'a', routingKey: 'somewhere' }));
    round(lanes, UNROUTABLE, 0);
    const [first, second] = lanes.take(10, 1e9, 1_100) as [Delivery, Delivery];
    lanes.answer(first, UNROUTABLE, 1_100);
    assert.deepEqual(seqsOf(lanes.answer(second, DURABLE, 1_100)), [1, 2]);
  });

  it('P10 a refused route is given up although its exchange takes other messages all the time', () => {
    for (const refused of [UNROUTABLE, { ...UNROUTABLE, code: ROUTE_REFUSED }]) {
      const lanes = lanesOf({ topicGraceMs: 1_000 }, (_, key) => String(key));
      lanes.add(messageOf(1, { key: 'a', routingKey: 'forbidden' }));
      for (let nowMs = 0; nowMs < 1_000; nowMs += 200) {
        assert.deepEqual(round(lanes, refused, nowMs).verdicts, []);
        lanes.add(messageOf(2 + nowMs, { key: 'b', routingKey: 'fine' }));
        assert.equal(round(lanes, DURABLE, nowMs).verdicts.length, 1);
      }
      assert.equal(round(lanes, refused, 1_000).verdicts[0]?.kind, 'park');
    }
  });

  it('P10 P7 what has no destination holds at most its share of the window', () => {
    const lanes = lanesOf({ maxStuckEvents: 50 });
    for (let seq = 1; seq <= 40; seq++) lanes.add(messageOf(seq));
    assert.deepEqual(round(lanes, MISSING, 0).verdicts, []);
    for (let seq = 41; seq <= 51; seq++) lanes.add(messageOf(seq));
    assert.deepEqual(round(lanes, MISSING, 1_000).verdicts, [], 'away for a moment only');
    assert.equal(
      round(lanes, MISSING, 6_000).verdicts.length,
      51,
      'past the share, before the grace is over',
    );
  });

  it('P10 no key is special: one that looks like a name of ours is delivered', () => {
    const lanes = lanesOf({}, (_, key) => key ?? undefined);
    lanes.add(messageOf(1, { key: 'unknown lane of t' }));
    assert.deepEqual(round(lanes, DURABLE, 0).taken, [1]);
    assert.equal(lanes.size, 0);
  });

  it('P1 what an outage holds back is kept, also past that share', () => {
    const lanes = lanesOf({ maxStuckEvents: 5 });
    for (let seq = 1; seq <= 100; seq++) lanes.add(messageOf(seq));
    for (let nowMs = 0; nowMs < 1_000_000; nowMs += 1_000)
      assert.deepEqual(round(lanes, UNKNOWN, nowMs).verdicts, []);
    assert.equal(lanes.size, 100);
  });

  it('P3 an unknown lane is asked one message at a time and dealt out in order', () => {
    let known = false;
    const lanes = lanesOf({}, (destination, key) => (known ? `${destination} ${key}` : undefined));
    for (const seq of [1, 2, 3, 4]) lanes.add(messageOf(seq, { key: seq % 2 === 0 ? 'even' : 'odd' }));
    const [first] = lanes.take(100, 1e9, 0);
    assert.deepEqual(lanes.take(100, 1e9, 0), []);
    known = true;
    lanes.add(messageOf(5, { key: 'odd' }));
    assert.deepEqual(
      lanes.take(100, 1e9, 0),
      [],
      'behind those that wait, although its lane is known by now',
    );
    lanes.answer(first as Delivery, UNKNOWN, 0);
    assert.deepEqual(seqsOf(lanes.take(100, 1e9, 100)), [1, 3, 5, 2, 4]);
  });

  it('P3 a topic forgotten for a moment does not let a newer message overtake', () => {
    let known = true;
    const lanes = lanesOf({}, () => (known ? 'partition 0' : undefined));
    lanes.add(messageOf(1));
    const [first] = lanes.take(10, 1e9, 0) as [Delivery];
    known = false;
    lanes.add(messageOf(2));
    assert.deepEqual(lanes.take(10, 1e9, 0), []);
    lanes.answer(first, UNKNOWN, 0);
    assert.deepEqual(round(lanes, DURABLE, 100).taken, [1]);
    assert.deepEqual(round(lanes, DURABLE, 300).taken, [2]);
  });

  it('a drain forgets what is queued, answers what is with the broker, sends nothing again', () => {
    const lanes = lanesOf({ laneLimit: { events: 2, bytes: 1e6 } });
    for (let seq = 1; seq <= 10; seq++) lanes.add(messageOf(seq, { key: String(seq % 2) }));
    const taken = lanes.take(100, 1e9, 0);
    lanes.discardQueued();
    assert.equal(lanes.size, taken.length);
    const verdicts = taken.flatMap((delivery, i) => lanes.answer(delivery, i < 3 ? DURABLE : UNKNOWN, 0));
    assert.equal(verdicts.length, 3);
    assert.equal(lanes.size, 0);
    assert.deepEqual(lanes.take(100, 1e9, 1e9), []);
    assert.equal(lanes.nextRetryMs(), undefined);
  });

  describe('P7 what waits while other lanes flow shares no memory with what has left', () => {
    const moved: number[] = [];

    /** Its row remembers that it was moved, and the body says so, too. */
    function sharing(seq: number, key = 'key'): Message {
      const message = messageOf(seq, { key, body: Buffer.from('shared') });
      message.event.row.own = () => {
        moved.push(seq);
        return Buffer.from('own');
      };
      return message;
    }

    beforeEach(() => void moved.splice(0));

    it('at its first retry, with all behind it, and once', () => {
      const lanes = lanesOf({ laneLimit: { events: 2, bytes: 1e6 } });
      for (const seq of [1, 2, 3]) lanes.add(sharing(seq));
      lanes.add(sharing(4, 'other'));
      const taken = lanes.take(10, 1e9, 0);
      const answers = (delivery: Delivery): Outcome => (delivery.message.key === 'key' ? UNKNOWN : DURABLE);
      for (const delivery of taken) lanes.answer(delivery, answers(delivery), 0);
      assert.deepEqual(moved, [1, 2, 3]);
      lanes.add(sharing(5));
      assert.deepEqual(moved, [1, 2, 3, 5], 'and what comes behind it');
      assert.deepEqual(round(lanes, UNKNOWN, 100).taken, [1, 2]);
      assert.deepEqual(moved, [1, 2, 3, 5]);
      const again = lanes.take(10, 1e9, 200);
      assert.deepEqual(bodiesOf(again), ['own', 'own'], 'what is sent is what it has now');
      for (const delivery of again) lanes.answer(delivery, DURABLE, 200);
      lanes.add(sharing(6));
      round(lanes, DURABLE, 300);
      assert.deepEqual(round(lanes, DURABLE, 300).taken, [6]);
      assert.deepEqual(moved, [1, 2, 3, 5], 'the lane flows again');
    });

    it('behind what the broker does not answer; never what it has', () => {
      const lanes = lanesOf();
      lanes.add(sharing(1));
      lanes.add(sharing(2));
      const [first, second] = lanes.take(10, 1e9, 0) as [Delivery, Delivery];
      lanes.take(10, 1e9, 100);
      lanes.add(sharing(3));
      assert.deepEqual(moved, [], 'as it is under load');
      lanes.take(10, 1e9, 1_000);
      lanes.add(sharing(4));
      lanes.add(sharing(5, 'other'));
      assert.deepEqual(moved, [4]);
      assert.deepEqual(bodiesOf([first, second]), ['shared', 'shared']);
    });

    it('not while the culprit of a group is looked for: nothing waits for that', () => {
      const lanes = lanesOf();
      for (const seq of [1, 2, 3, 4]) lanes.add(sharing(seq));
      round(lanes, TOO_LARGE, 0);
      assert.deepEqual(
        [round(lanes, DURABLE, 0).taken, round(lanes, DURABLE, 0).taken],
        [
          [1, 2],
          [3, 4],
        ],
      );
      assert.deepEqual(moved, []);
    });
  });

  it('two answers for one delivery are a fault of the publisher', () => {
    const lanes = lanesOf();
    for (const seq of [1, 2]) lanes.add(messageOf(seq));
    const [first] = lanes.take(10, 1e9, 0) as [Delivery];
    lanes.answer(first, DURABLE, 0);
    assert.throws(() => lanes.answer(first, UNKNOWN, 0), RangeError);
  });
});
