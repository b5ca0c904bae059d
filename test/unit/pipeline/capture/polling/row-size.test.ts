import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DatabaseError } from 'pg';
import { measureEach } from '../../../../../src/pipeline/capture/polling/row-size.ts';

function failure(code: string): DatabaseError {
  return Object.assign(new DatabaseError('too large', 1, 'error'), { code });
}

/** Measures rows together, unless one of these is among them. */
function measuring(
  unprintable: readonly number[],
  code: string,
): (seqs: readonly number[]) => Promise<string[]> {
  return async (seqs) => {
    if (seqs.some((seq) => unprintable.includes(seq))) throw failure(code);
    return await Promise.resolve(seqs.map((seq) => `row ${seq}`));
  };
}

const giant = async (seq: number): Promise<string> => await Promise.resolve(`giant ${seq}`);

describe('measureEach', () => {
  for (const code of ['54000', 'XX000', '53200']) {
    it(`P7 P10 rows that the server can't print are told, their neighbours measured, all in order: ${code}`, async () => {
      const seqs = Array.from({ length: 9 }, (_, i) => i + 1);
      const rows = await measureEach(seqs, measuring([4, 5, 9], code), giant);
      const giants = new Set([4, 5, 9]);
      assert.deepEqual(
        rows,
        seqs.map((seq) => (giants.has(seq) ? `giant ${seq}` : `row ${seq}`)),
      );
    });
  }

  it('any other error is thrown', async () => {
    await assert.rejects(measureEach([1, 2], measuring([2], '42703'), giant), { code: '42703' });
  });
});
