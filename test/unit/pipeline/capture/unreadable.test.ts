import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DatabaseError } from 'pg';
import { StreamFailures } from '../../../../src/pipeline/capture/unreadable.ts';
import { StreamedError } from '../../../../src/postgres/error-response.ts';

function streamed(code: string, message: string): StreamedError {
  return Object.assign(new StreamedError(message, message.length, 'error'), { code });
}

const UNSENDABLE = streamed('XX000', 'invalid memory alloc request size 1258291203');
const DAMAGED = streamed('XX001', 'missing chunk number 0 for toast value 1');

describe('StreamFailures', () => {
  it('P7 a row that no server can print is left at once', () => {
    assert.ok(new StreamFailures().neverPasses(UNSENDABLE, 5n));
    const bomb = streamed('54000', 'string buffer exceeds maximum allowed length (1073741823 bytes)');
    assert.ok(new StreamFailures().neverPasses(bomb, 5n));
  });

  it('P7 any other error about the data is left when it comes a second time at one position', () => {
    const failures = new StreamFailures();
    assert.deepEqual(
      [5n, 6n, 6n].map((position) => failures.neverPasses(DAMAGED, position)),
      [false, false, true],
    );
  });

  it('P5 two different errors at one position prove nothing', () => {
    const failures = new StreamFailures();
    const other = streamed('XX001', 'could not read block 3');
    assert.deepEqual(
      [DAMAGED, other, DAMAGED].map((error) => failures.neverPasses(error, 5n)),
      [false, false, false],
    );
  });

  it('P5 an ended connection, or an error of another statement, is no reason, however often it comes', () => {
    const failures = new StreamFailures();
    const elsewhere = Object.assign(new DatabaseError('invalid memory alloc request size 1', 1, 'error'), {
      code: 'XX000',
    });
    for (const error of [streamed('57P01', 'terminating connection'), elsewhere, new Error('reset')])
      for (let time = 0; time < 3; time++) assert.equal(failures.neverPasses(error, 5n), false);
  });
});
