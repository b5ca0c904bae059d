import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { crc32c } from '../../../../../src/pipeline/publish/kafka/crc32c.ts';

const require = createRequire(import.meta.url);
const kafkajs = require('kafkajs/src/protocol/recordBatch/crc32C') as (bytes: Uint8Array) => number;

test('the checksum gives the values of RFC 3720, B.4', () => {
  assert.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa);
  assert.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43);
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
});

test('the checksum of any range at any alignment equals that of kafkajs', () => {
  const range = fc.tuple(fc.uint8Array({ minLength: 64, maxLength: 700 }), fc.nat(63), fc.nat(63));
  fc.assert(
    fc.property(range, ([bytes, skip, cut]) => {
      const end = Math.max(skip, bytes.length - cut);
      assert.equal(crc32c(bytes, skip, end), kafkajs(bytes.subarray(skip, end)));
    }),
    { numRuns: 500 },
  );
});
