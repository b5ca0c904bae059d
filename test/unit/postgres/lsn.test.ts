import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { formatLsn, parseLsn } from '../../../src/postgres/lsn.ts';

test('positions go to text and back, and compare as numbers where text would not', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (lsn) => parseLsn(formatLsn(lsn)) === lsn),
  );
  assert.equal(formatLsn(0x16_b374d848n), '16/B374D848');
  assert.ok(parseLsn('1/5') > parseLsn('0/FFFFFFFF'));
  for (const text of ['', '1', '1/', '/1', '1/123456789', 'x/1', '-1/0', ' 1/0'])
    assert.throws(() => parseLsn(text), TypeError);
});
