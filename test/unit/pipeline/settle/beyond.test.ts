import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import type { OutboxEvent } from '../../../../src/pipeline/capture/event.ts';
import { MAX_RUNS, SettledBeyond } from '../../../../src/pipeline/settle/beyond.ts';
import { containsEvent, toRuns, type Run } from '../../../../src/pipeline/settle/settled-runs.ts';
import { Watermark } from '../../../../src/pipeline/settle/watermark.ts';
import { eventOf, transactionOf } from '../builders.ts';

function withGaps(from: number, count = 5_000): Run[] {
  return toRuns(Array.from({ length: count }, (_, i) => ({ seq: (from + i) * 2, xid: 7 })));
}

describe('SettledBeyond', () => {
  it('P4 nothing settled beyond the position is forgotten, whatever the order of settling', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 60, size: 'max' }),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 5 }), fc.nat(2)), {
          maxLength: 120,
          size: 'max',
        }),
        (sizes, batches) => {
          const watermark = new Watermark(0n);
          const beyond = new SettledBeyond();
          const open: OutboxEvent[] = [];
          const settled: OutboxEvent[] = [];
          let seq = 0;
          const receive = (): void => {
            const size = sizes.shift();
            if (size === undefined) return;
            const transaction = transactionOf({ xid: seq + 1, endLsn: BigInt(seq + size) });
            watermark.begin(transaction);
            for (let i = 0; i < size; i++) open.push(eventOf(++seq, transaction));
          };
          for (const [pick, count, receiving] of batches) {
            for (let i = 0; i <= receiving; i++) receive();
            const batch = open.splice(pick % Math.max(1, open.length), count);
            for (const event of batch) watermark.settle(event);
            settled.push(...batch);
            const position = watermark.advance();
            beyond.add(toRuns(batch), watermark.received);
            beyond.forget(watermark.completed);
            const runs = beyond.runs();
            for (const event of settled) {
              const covered = (event.transaction.endLsn as bigint) <= position;
              assert.ok(covered || containsEvent(runs, event), `event ${event.seq} was forgotten`);
            }
            for (const event of open)
              assert.ok(!containsEvent(runs, event), `event ${event.seq} is not settled`);
          }
        },
      ),
    );
  });

  it('P7 is bounded in a transaction of any size whose numbers have gaps: the oldest is forgotten', () => {
    const beyond = new SettledBeyond();
    for (let from = 0; from < 2 * MAX_RUNS; from += 5_000) {
      beyond.add(withGaps(from), 1);
      assert.ok(beyond.size <= MAX_RUNS, String(beyond.size));
    }
    assert.ok(containsEvent(beyond.runs(), { seq: (2 * MAX_RUNS - 1) * 2, xid: 7 }), 'the newest is kept');
  });

  for (const perWrite of [50, 500, 5_000]) {
    it(`P4 when the bound is reached little of it goes at a time: ${perWrite} runs a write`, () => {
      const beyond = new SettledBeyond();
      let least = Infinity;
      for (let from = 0; from < 3 * MAX_RUNS; from += perWrite) {
        beyond.add(withGaps(from, perWrite), 1);
        if (from > MAX_RUNS) least = Math.min(least, beyond.size);
      }
      assert.ok(least > MAX_RUNS / 2, String(least));
    });
  }

  it('P7 is empty once everything received is completed', () => {
    const beyond = new SettledBeyond();
    for (let i = 1; i <= 40; i++) beyond.add(toRuns([{ seq: i * 2, xid: i }]), i);
    assert.equal(beyond.runs().length, 40);
    beyond.forget(39);
    assert.ok(beyond.runs().length >= 1);
    beyond.forget(40);
    assert.deepEqual(beyond.runs(), []);
  });
});
