import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { LowerBound } from '../../../../../src/pipeline/capture/polling/lower-bound.ts';

/** What a look from the beginning costs when the table is full of removed rows. */
const SLOW_MS = 400;
const MAX_FULL_LOOK_REST_MS = 300_000;
const ROUND_MS = 250;
const PAGE = 5;
/** Numbers that a transaction draws at a time: enough for a round to be worth it. */
const DRAWN_AT_ONCE = 1_000;

interface Transaction {
  readonly name: string;
  readonly drawn: number[];
  readonly inserted: Set<number>;
}

/** A table, its sequence, transactions that draw and insert, and a relay that looks with a bound. */
class Model {
  readonly bound = new LowerBound();
  readonly delivered = new Set<number>();
  private readonly committed = new Set<number>();
  private readonly inHand = new Set<number>();
  private readonly running = new Map<number, Transaction>();
  private last = 0;
  private begun = 0;
  private nowMs = 0;

  /** Number of transactions: what `slot` names is begun when it is not there. */
  private transaction(slot: number): Transaction {
    const known = this.running.get(slot);
    if (known) return known;
    const begun = { name: `3/${++this.begun}`, drawn: [], inserted: new Set<number>() };
    this.running.set(slot, begun);
    return begun;
  }

  draw(slot: number, count: number): void {
    for (let i = 0; i < count; i++) this.transaction(slot).drawn.push(++this.last);
  }

  /** Any of the numbers drawn by the same transaction, at any later time. */
  insert(slot: number, which: number): void {
    const { drawn, inserted } = this.transaction(slot);
    const seq = drawn[which % Math.max(1, drawn.length)];
    if (seq !== undefined && !this.delivered.has(seq)) inserted.add(seq);
  }

  /** The rows go, the numbers and the lock stay. */
  rollbackToSavepoint(slot: number): void {
    this.transaction(slot).inserted.clear();
  }

  end(slot: number, commit: boolean): void {
    const { inserted } = this.transaction(slot);
    if (commit) for (const seq of inserted) this.committed.add(seq);
    this.running.delete(slot);
  }

  /** A row whose number nobody has drawn in its transaction. */
  restore(seq: number): void {
    if (!this.delivered.has(seq)) this.committed.add(seq);
  }

  setSequence(last: number): void {
    this.last = last;
  }

  readHolders(): void {
    if (!this.bound.wantsHolders(this.nowMs)) return;
    const holders = [...this.running.values()].filter(({ drawn }) => drawn.length > 0);
    this.bound.heldBy(
      holders.map(({ name }) => name),
      this.nowMs,
    );
  }

  /** One look. With `strict`, whatever it leaves out must be in hand. Returns where it began. */
  look(strict: boolean): number | undefined {
    const from = this.bound.next(this.nowMs);
    const undelivered = [...this.committed].toSorted((a, b) => a - b).filter((seq) => !this.inHand.has(seq));
    const fresh = undelivered.filter((seq) => seq >= (from ?? 0)).slice(0, PAGE);
    if (strict && from !== undefined)
      assert.deepEqual(
        undelivered.filter((seq) => seq < from),
        [],
        `left out below ${from}`,
      );
    this.nowMs += SLOW_MS;
    this.bound.looked({
      from,
      lowest: fresh[0],
      drawn: this.last,
      endedMs: this.nowMs,
      tookMs: from === undefined ? SLOW_MS : 1,
    });
    for (const seq of fresh) this.inHand.add(seq);
    if (fresh.length > 0) this.bound.advance((fresh.at(-1) ?? 0) + 1);
    this.nowMs += ROUND_MS;
    return from;
  }

  settle(count: number): void {
    for (const seq of [...this.inHand].slice(0, count)) {
      this.inHand.delete(seq);
      this.committed.delete(seq);
      this.delivered.add(seq);
    }
  }

  pass(ms: number): void {
    this.nowMs += ms;
  }
}

const slot = fc.nat(2);
type Step = (model: Model) => void;
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(slot, fc.constantFrom(1, DRAWN_AT_ONCE)).map(([of, count]): Step => {
    return (model) => model.draw(of, count);
  }),
  fc.tuple(slot, fc.nat(1_000)).map(([of, which]): Step => {
    return (model) => model.insert(of, which);
  }),
  slot.map((of): Step => {
    return (model) => model.rollbackToSavepoint(of);
  }),
  fc.tuple(slot, fc.boolean()).map(([of, commit]): Step => {
    return (model) => model.end(of, commit);
  }),
  fc.nat(20).map((count): Step => {
    return (model) => model.settle(count);
  }),
);
const steps = fc.oneof(
  step,
  fc.constantFrom<Step>(
    (model) => model.readHolders(),
    (model) => void model.look(true),
  ),
);

/** So many looks as the relay makes them. */
function relayLooks(model: Model, count: number, strict = true): number | undefined {
  let from: number | undefined;
  for (let i = 0; i < count; i++) {
    model.readHolders();
    from = model.look(strict);
  }
  return from;
}

describe('LowerBound', () => {
  it('P1 P3 nothing that any transaction inserts with a number of its own is ever left out of a look', () => {
    fc.assert(
      fc.property(fc.array(steps, { minLength: 20, maxLength: 200 }), (run) => {
        const model = new Model();
        for (const each of run) each(model);
      }),
      { numRuns: 1_000 },
    );
  });

  it('P3 it follows the numbers given out as soon as nobody can insert one below', () => {
    const model = new Model();
    model.draw(0, 5_000);
    model.insert(0, 0);
    assert.equal(relayLooks(model, 10), undefined, 'a running transaction has drawn');
    model.end(0, true);
    model.draw(1, 3_000);
    relayLooks(model, 3);
    model.settle(10);
    assert.equal(relayLooks(model, 1), 5_001, 'the next one has drawn everything above');
    model.rollbackToSavepoint(1);
    model.end(1, false);
    assert.equal(relayLooks(model, 5), 8_001);
  });

  it('P1 rows with old numbers are found within minutes, and then looks begin at the beginning', () => {
    const numbers = fc.array(fc.integer({ min: 1, max: 9_000 }), { minLength: 1, maxLength: 10 });
    fc.assert(
      fc.property(numbers, (restored) => {
        const model = boundAt(10_001);
        for (const seq of restored) model.restore(seq);
        model.pass(MAX_FULL_LOOK_REST_MS);
        relayLooks(model, 3, false);
        for (let i = 0; i < 100; i++) {
          model.settle(100);
          assert.equal(relayLooks(model, 1), undefined);
        }
        for (const seq of restored) assert.ok(model.delivered.has(seq), `${seq}`);
      }),
    );
  });

  it('P1 P3 a sequence that was set back is noticed by the next look', () => {
    const model = boundAt(10_001);
    model.setSequence(0);
    assert.equal(relayLooks(model, 1), 10_001);
    model.draw(1, 10);
    model.insert(1, 3);
    model.end(1, true);
    assert.equal(relayLooks(model, 1), undefined);
    model.settle(10);
    assert.deepEqual([...model.delivered], [4]);
  });

  it('P3 without knowledge of the sequence every look begins at the beginning', () => {
    const bound = new LowerBound();
    for (let nowMs = 0; nowMs < 100_000; nowMs += 1_000) {
      assert.equal(bound.wantsHolders(nowMs), false);
      assert.equal(bound.next(nowMs), undefined);
      bound.looked({ from: undefined, lowest: nowMs, drawn: undefined, endedMs: nowMs, tookMs: 500 });
      bound.advance(nowMs + 10);
    }
  });
});

/** The sequence has given out everything below, and no transaction runs. */
function boundAt(seq: number): Model {
  const model = new Model();
  model.draw(0, seq - 1);
  model.end(0, false);
  assert.equal(relayLooks(model, 5), seq);
  return model;
}
