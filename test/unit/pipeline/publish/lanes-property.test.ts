import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import type { Message } from '../../../../src/pipeline/envelope/message.ts';
import type { Delivery } from '../../../../src/pipeline/publish/lane.ts';
import { Lanes, type Verdict } from '../../../../src/pipeline/publish/lanes.ts';
import { DURABLE, type Outcome } from '../../../../src/pipeline/publish/publisher.ts';
import { messageOf } from '../builders.ts';

const GROUP = 8;
const MAX_ATTEMPTS = 3;

const UNKNOWN: Outcome = { kind: 'unknown', code: 'away', reason: '' };
const REFUSED_GROUP: Outcome = {
  kind: 'rejected',
  code: 'too-large',
  reason: '',
  permanent: true,
  scope: 'group',
};
const REFUSED: Outcome = { ...REFUSED_GROUP, scope: 'event' };

interface Step {
  readonly do: 'add' | 'take' | 'answer' | 'wait' | 'learn' | 'forget' | 'relayout';
  readonly number: number;
}

const schedule: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    do: fc.constantFrom(
      'add',
      'add',
      'add',
      'take',
      'take',
      'answer',
      'answer',
      'answer',
      'wait',
      'learn',
      'forget',
      'relayout',
    ),
    number: fc.nat(1_000),
  }),
  { maxLength: 400, size: 'max' },
);

/** A broker that keeps the contract: of one lane's group, what becomes durable does so in order. */
class ScriptedBroker {
  readonly known = new Set<string>();
  readonly durable: Message[] = [];
  readonly parked: Verdict[] = [];
  readonly lanes = new Lanes(
    {
      laneLimit: { events: GROUP, bytes: 1_000 },
      maxAttempts: MAX_ATTEMPTS,
      topicGraceMs: 1_000,
      maxStuckEvents: 1_000_000,
      retryDelayMs: (failures) => 10 * (failures + 1),
    },
    { laneOf: (message) => this.laneOf(message), layoutOf: () => this.layout },
  );
  added = 0;
  /** How many lanes the keys of a destination are spread over; a broker may change it at any time. */
  layout = 2;
  private readonly poison: ReadonlySet<number>;
  private groups: Delivery[][] = [];
  private nowMs = 0;

  constructor(poison: readonly number[]) {
    this.poison = new Set(poison);
  }

  private laneOf({ destination, key }: Message): string | undefined {
    // Two keys share a lane, as they share a partition.
    return this.known.has(destination)
      ? `${destination}:${this.layout}:${Number(key) % this.layout}`
      : undefined;
  }

  apply({ do: what, number }: Step): void {
    const topic = `t${number % 2}`;
    if (what === 'add') this.add(topic, number % 5);
    else if (what === 'take') this.take(1 + (number % 20));
    else if (what === 'answer') this.answer(number);
    else if (what === 'wait') this.nowMs += number % 30;
    else if (what === 'learn') this.known.add(topic);
    else if (what === 'relayout') this.layout = 2 + (number % 2);
    else this.known.delete(topic);
  }

  private add(destination: string, key: number): void {
    this.lanes.add(messageOf(++this.added, { destination, key: String(key), sizeBytes: 150 }));
  }

  private take(room: number): void {
    const taken = this.lanes.take(room, 2_000, this.nowMs);
    assert.ok(taken.length <= room, 'never more than there is room for');
    for (const group of Map.groupBy(taken, ({ lane }) => lane).values()) {
      assert.ok(group.length <= GROUP);
      const bytes = group.reduce((sum, { message }) => sum + message.sizeBytes, 0);
      assert.ok(group.length === 1 || bytes <= 1_000, 'bytes of a group');
      assert.ok(
        !this.groups.some(([first]) => first?.lane === group[0]?.lane),
        'one group outstanding a lane',
      );
      this.groups.push(group);
    }
  }

  /** Answers one group, its members in any order. `number` decides how. */
  private answer(number: number): void {
    const [group] = this.groups.splice(number % Math.max(1, this.groups.length), 1);
    if (!group) return;
    const outcomes = this.outcomesFor(group, number % 7);
    const order = number % 2 === 0 ? group : group.toReversed();
    for (const delivery of order) {
      const outcome = outcomes[group.indexOf(delivery)] as Outcome;
      this.record(this.lanes.answer(delivery, outcome, this.nowMs));
    }
  }

  private outcomesFor(group: readonly Delivery[], how: number): Outcome[] {
    const bad = group.map(({ message }) => this.poison.has(message.event.seq));
    const durableUntil = how === 0 ? 0 : how === 1 ? Math.floor(group.length / 2) : group.length;
    const outcomes = group.map((_, i): Outcome => {
      if (i >= durableUntil) return UNKNOWN;
      if (bad.includes(true) && how < 5) return group.length > 1 ? REFUSED_GROUP : REFUSED;
      return bad[i] === true ? REFUSED : DURABLE;
    });
    for (const [i, outcome] of outcomes.entries())
      if (outcome.kind === 'durable') this.durable.push((group[i] as Delivery).message);
    return outcomes;
  }

  private record(verdicts: readonly Verdict[]): void {
    for (const verdict of verdicts) if (verdict.kind === 'park') this.parked.push(verdict);
  }

  /** The broker is well again; everything must come to an end. */
  finish(): void {
    this.known.add('t0').add('t1');
    for (let round = 0; this.lanes.size > 0; round++) {
      assert.ok(round < 10_000, 'no end: something was forgotten in its lane');
      this.nowMs = Math.max(this.nowMs, this.lanes.nextRetryMs() ?? 0);
      this.take(1_000);
      while (this.groups.length > 0) this.answer(6);
    }
  }

  check(): void {
    const durable = this.durable.map(({ event }) => event.seq);
    assert.equal(new Set(durable).size, durable.length, 'P4 what is durable is not sent again');
    const parked = this.parked.map(({ message }) => message.event.seq);
    assert.deepEqual(
      [...durable, ...parked].toSorted((a, b) => a - b),
      Array.from({ length: this.added }, (_, i) => i + 1),
      'P1 everything is durable or parked, once',
    );
    for (const verdict of this.parked) {
      assert.ok(this.poison.has(verdict.message.event.seq), 'P10 only the culprit is parked');
      assert.equal(verdict.kind === 'park' && verdict.attempts, 1, 'an outage or a group is no attempt');
    }
    for (const messages of Map.groupBy(
      this.durable,
      ({ destination, key }) => `${destination} ${key}`,
    ).values()) {
      const seqs = messages.map(({ event }) => event.seq);
      assert.deepEqual(
        seqs,
        seqs.toSorted((a, b) => a - b),
        'P3 order per key',
      );
    }
  }
}

describe('Lanes under random schedules', () => {
  it('P1 P3 P10 every message ends durable in the order of its key, or parked if it is the culprit', () => {
    fc.assert(
      fc.property(schedule, fc.array(fc.integer({ min: 1, max: 150 }), { maxLength: 8 }), (steps, poison) => {
        const broker = new ScriptedBroker(poison);
        for (const step of steps) broker.apply(step);
        broker.finish();
        broker.check();
      }),
      { numRuns: 400 },
    );
  });
});
