import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { inWrites } from '../../../../src/pipeline/settle/portion.ts';
import type { Settled } from '../../../../src/pipeline/settle/settlement.ts';
import { eventOf, transactionOf } from '../builders.ts';

const MEGABYTE = 1_048_576;
const PARKED = { code: 'topic-missing', reason: '', attempts: 0, destination: null, key: null };

function settled(seq: number, sizeBytes: number, part: Partial<Settled> = {}): Settled {
  return { event: eventOf(seq, transactionOf({ xid: 5 }), { sizeBytes }), ...part };
}

const shapes = (items: readonly Settled[], most = 5_000): number[] =>
  [...inWrites(items, most)].map(({ length }) => length);

describe('what is settled in one statement', () => {
  it('P7 is bounded by the bytes of the rows that are parked, one row at least', () => {
    const parked = Array.from({ length: 10 }, (_, i) => settled(i, 1.5 * MEGABYTE, { parked: PARKED }));
    assert.deepEqual(shapes(parked), [2, 2, 2, 2, 2]);
    const large = [1, 2, 3].map((seq) => settled(seq, 9 * MEGABYTE, { parked: PARKED }));
    assert.deepEqual(shapes(large), [1, 1, 1]);
  });

  it('is bounded by events alone where no row is sent: delivered ones, and those that the database parked', () => {
    const delivered = Array.from({ length: 5 }, (_, i) => settled(i, 9 * MEGABYTE));
    const inDatabase = Array.from({ length: 4 }, (_, i) =>
      settled(i, 9 * MEGABYTE, { parked: PARKED, parkedInDatabase: true }),
    );
    assert.deepEqual(shapes([...delivered, ...inDatabase]), [9]);
    assert.deepEqual(shapes([...delivered, ...inDatabase], 4), [4, 4, 1]);
    assert.deepEqual(shapes([]), []);
  });
});
