import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import type { OutboxEvent, Transaction } from '../../../../src/pipeline/capture/event.ts';
import { Watermark } from '../../../../src/pipeline/settle/watermark.ts';
import { eventOf, transactionOf } from '../builders.ts';

const START = 1_000n;

type Step =
  | { readonly do: 'receive'; readonly events: number; readonly committed: boolean }
  | { readonly do: 'commit' }
  | { readonly do: 'settle'; readonly pick: number }
  | { readonly do: 'heard'; readonly ahead: number }
  | { readonly do: 'advance' };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('receive' as const),
        events: fc.integer({ min: 1, max: 4 }),
        committed: fc.boolean(),
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('commit' as const) }) },
    { weight: 8, arbitrary: fc.record({ do: fc.constant('settle' as const), pick: fc.nat() }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('heard' as const), ahead: fc.nat(50) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('advance' as const) }) },
  ),
  { maxLength: 200, size: 'max' },
);

/** The same books, kept naively: everything is looked at again at every question. */
class NaiveBooks {
  readonly transactions: Transaction[] = [];
  readonly unsettled: OutboxEvent[] = [];
  readonly legal = new Set<bigint>([START]);
  private seq = 0;
  private lsn = START;
  heard = START;

  receive(count: number, committed: boolean): Transaction | undefined {
    if (this.transactions.at(-1)?.endLsn === undefined && this.transactions.length > 0) return undefined;
    const transaction = transactionOf({ xid: this.transactions.length + 1 });
    for (let i = 0; i < count; i++) this.unsettled.push(eventOf(++this.seq, transaction));
    this.transactions.push(transaction);
    if (committed) this.commit();
    return transaction;
  }

  commit(): void {
    const last = this.transactions.at(-1);
    if (!last || last.endLsn !== undefined) return;
    this.lsn += 10n;
    last.endLsn = this.lsn;
    this.legal.add(this.lsn);
  }

  /** Between transactions only, as the assembly passes it on. */
  hear(ahead: number): bigint | undefined {
    if (this.transactions.at(-1)?.endLsn === undefined && this.transactions.length > 0) return undefined;
    this.lsn += BigInt(ahead);
    this.heard = this.lsn;
    this.legal.add(this.lsn);
    return this.lsn;
  }

  get position(): bigint {
    let position = START;
    for (const { endLsn, outstanding } of this.transactions) {
      if (endLsn === undefined || outstanding > 0) return position;
      position = endLsn;
    }
    return this.heard > position ? this.heard : position;
  }
}

function apply(books: NaiveBooks, watermark: Watermark, step: Step): void {
  if (step.do === 'receive') {
    const transaction = books.receive(step.events, step.committed);
    if (transaction) watermark.begin(transaction);
  } else if (step.do === 'commit') books.commit();
  else if (step.do === 'settle') {
    const [event] = books.unsettled.splice(step.pick % Math.max(1, books.unsettled.length), 1);
    if (event) watermark.settle(event);
  } else if (step.do === 'heard') {
    const lsn = books.hear(step.ahead);
    if (lsn !== undefined) watermark.heard(lsn);
  }
}

describe('Watermark', () => {
  it('P1 is the end of the contiguous settled prefix, whatever the order of completion', () => {
    fc.assert(
      fc.property(steps, (schedule) => {
        const books = new NaiveBooks();
        const watermark = new Watermark(START);
        let before = START;
        for (const step of schedule) {
          apply(books, watermark, step);
          if (step.do !== 'advance') continue;
          // A position that was right stays right, although more was received since.
          const position = watermark.advance();
          const naive = books.position;
          assert.equal(position, naive > before ? naive : before);
          assert.ok(books.legal.has(position), 'only ends of commits and what the server named');
          assert.equal(
            watermark.oldest,
            books.transactions.find((t) => t.endLsn === undefined || t.outstanding > 0),
          );
          assert.equal(watermark.received, books.transactions.length);
          before = position;
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it('P1 a keepalive counts only while nothing is outstanding', () => {
    const watermark = new Watermark(START);
    const transaction = transactionOf({ endLsn: 1_010n });
    const event = eventOf(1, transaction);
    watermark.begin(transaction);
    watermark.heard(2_000n);
    assert.equal(watermark.advance(), START);
    watermark.settle(event);
    assert.equal(watermark.advance(), 2_000n);
  });

  it('P1 a transaction without its COMMIT holds the position, also when all that came of it is settled', () => {
    const watermark = new Watermark(START);
    const open = transactionOf();
    watermark.begin(open);
    watermark.settle(eventOf(1, open));
    watermark.heard(5_000n);
    assert.equal(watermark.advance(), START);
    open.endLsn = 1_500n;
    assert.equal(watermark.advance(), 5_000n);
  });

  it('an event settled twice is a fault of the program, not a position', () => {
    const watermark = new Watermark(START);
    const event = eventOf(1, transactionOf({ endLsn: 1_010n }));
    watermark.begin(event.transaction);
    watermark.settle(event);
    assert.throws(() => watermark.settle(event), RangeError);
  });

  it('P7 forgets what it passed, at constant cost an event', () => {
    const watermark = new Watermark(START);
    const count = 200_000;
    for (let i = 1; i <= count; i++) {
      const transaction = transactionOf({ endLsn: START + BigInt(i) });
      const event = eventOf(i, transaction);
      watermark.begin(transaction);
      watermark.settle(event);
      watermark.advance();
    }
    assert.equal(watermark.settled, START + BigInt(count));
    assert.equal(watermark.completed, count);
    assert.equal(watermark.oldest, undefined);
  });
});
