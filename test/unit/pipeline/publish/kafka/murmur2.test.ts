import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { murmur2, murmur2OfText, partitionOf } from '../../../../../src/pipeline/publish/kafka/murmur2.ts';

const require = createRequire(import.meta.url);
const kafkajs = require('kafkajs/src/producer/partitioners/default/murmur2') as (key: Buffer) => number;

/** From UtilsTest of Apache Kafka. */
const JAVA_VECTORS: readonly (readonly [string, number])[] = [
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
];

test('P3 the key hash gives the values of the Java client', () => {
  for (const [key, hash] of JAVA_VECTORS) {
    assert.equal(murmur2(Buffer.from(key)), hash, key);
    assert.equal(murmur2OfText(key), hash, key);
  }
});

test('P3 the key hash equals that of kafkajs for any bytes and any text', () => {
  const bytes = fc.uint8Array({ maxLength: 80 });
  fc.assert(fc.property(bytes, (data) => murmur2(data) === kafkajs(Buffer.from(data))));
  const text = fc.oneof(fc.string({ maxLength: 60 }), fc.string({ unit: 'binary', maxLength: 60 }));
  fc.assert(fc.property(text, (key) => murmur2OfText(key) === kafkajs(Buffer.from(key))));
});

test('P3 a partition is never negative and below the count', () => {
  fc.assert(
    fc.property(fc.string(), fc.integer({ min: 1, max: 1000 }), (key, count) => {
      const partition = partitionOf(key, count);
      return Number.isInteger(partition) && partition >= 0 && partition < count;
    }),
  );
});
