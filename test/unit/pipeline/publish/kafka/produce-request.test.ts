import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { viewOf } from '../../../../../src/pipeline/capture/byte-range.ts';
import { gunzipSync } from 'node:zlib';
import * as fc from 'fast-check';
import type { Message } from '../../../../../src/pipeline/envelope/message.ts';
import {
  type Batch,
  gzipRecords,
  requestBound,
  writeProduceRequest,
} from '../../../../../src/pipeline/publish/kafka/produce-request.ts';
import { PRODUCE, requestHeader } from '../../../../../src/pipeline/publish/kafka/protocol.ts';
import {
  BATCH_HEADER_BYTES,
  batchBound,
  writeBatch,
} from '../../../../../src/pipeline/publish/kafka/record-batch.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';

/** kafkajs's own encoder is the oracle: the bytes have to be the same. */
const require = createRequire(import.meta.url);

interface Oracle {
  readonly messages: readonly {
    key: string | null;
    value: Buffer | null;
    timestamp: number;
    headers: Record<string, string>;
  }[];
}

const Long = require('kafkajs/src/utils/long') as { fromInt(value: number): unknown };
const createRequest = require('kafkajs/src/protocol/request') as (
  parts: object,
) => Promise<{ buffer: Buffer }>;
const produceV7 = require('kafkajs/src/protocol/requests/produce/v7/request') as (parts: object) => object;

async function kafkajsRequest(
  batches: readonly Batch[],
  correlationId: number,
  clientId: string,
): Promise<Buffer> {
  const topics = [...new Set(batches.map(({ topic }) => topic))];
  const topicData = topics.map((topic) => ({
    topic,
    partitions: batches
      .filter((batch) => batch.topic === topic)
      .map(({ partition, messages }) => ({ partition, firstSequence: -1, messages: forKafkajs(messages) })),
  }));
  const producer = { producerId: Long.fromInt(-1), producerEpoch: -1 };
  const request = produceV7({ acks: -1, timeout: 30_000, topicData, ...producer });
  return (await createRequest({ correlationId, clientId, request })).buffer;
}

function forKafkajs(messages: readonly Message[]): Oracle['messages'] {
  return messages.map((message) => {
    const { id, type: eventType, contentType, key } = message;
    const value = viewOf(message.body);
    const own = { id, eventType, contentType };
    const headers = { ...own, ...message.headers, ...own };
    return { key, value, timestamp: message.timestampMs, headers };
  });
}

function encode(batches: readonly Batch[], correlationId: number, clientId: string): Buffer {
  const buffer = Buffer.alloc(requestBound(batches), 0xaa);
  const body = buffer.subarray(0, writeProduceRequest(buffer, batches, 30_000));
  return Buffer.concat([requestHeader({ ...PRODUCE, body }, correlationId, clientId), body]);
}

const text = fc.oneof(
  fc.string({ maxLength: 80 }),
  fc.string({ unit: 'grapheme', maxLength: 80 }),
  fc.constantFrom('', 'a'.repeat(63), 'a'.repeat(64), 'é'.repeat(32), 'x'.repeat(8192)),
);
const body = fc.oneof(
  fc.constant(null),
  fc.uint8Array({ maxLength: 300 }),
  fc.integer({ min: 0, max: 200 }).map((n) => new Uint8Array(n)),
  fc.integer({ min: 8000, max: 8300 }).map((n) => new Uint8Array(n)),
);
// A header named like an array index would come first in any JavaScript object.
const headerName = text.map((name) => `h${name}`);
const parts = fc.record({
  id: text,
  type: text,
  contentType: text,
  key: fc.option(text),
  body: body.map((bytes) => bytes && Buffer.from(bytes)),
  headers: fc.option(fc.dictionary(fc.oneof(headerName, fc.constantFrom('id', 'eventType')), text), {
    nil: undefined,
  }),
  destination: fc.constant('t'),
});

// kafkajs takes the lowest time as the first, and sorts times as text: rising times of one length are where both agree.
const messages = fc
  .tuple(
    fc.array(parts, { minLength: 1, maxLength: 12 }),
    fc.integer({ min: 1_000_000_000_000, max: 9_000_000_000_000 }),
    fc.constantFrom(0, 1, 63, 64, 100_000, 5_000_000_000),
  )
  .map(([all, first, step]) =>
    all.map((one, i) => makeMessage(Object.assign(one, { timestampMs: first + i * step }))),
  );

test('P2 a Produce request is the same, byte for byte, as that of kafkajs', async () => {
  const topics = fc.uniqueArray(fc.stringMatching(/^[a-z0-9._-]{1,40}$/), { minLength: 1, maxLength: 3 });
  const lists = fc.array(messages, { minLength: 1, maxLength: 4 });
  const request = fc.tuple(topics, lists, fc.nat(2_000_000_000), text);
  await fc.assert(
    fc.asyncProperty(request, async ([names, partitions, correlationId, clientId]) => {
      const batches = names.flatMap((topic) =>
        partitions.map((part, partition) => ({ topic, partition: partition * 7, messages: part })),
      );
      const expected = await kafkajsRequest(batches, correlationId, clientId);
      assert.deepEqual(encode(batches, correlationId, clientId), expected);
    }),
    { numRuns: 300 },
  );
});

test('P2 gzip carries the same records', async () => {
  const batches = [{ topic: 't', partition: 0, messages: [makeMessage({ destination: 't', id: '1' })] }];
  const [compressed] = await gzipRecords(batches);
  const plain = Buffer.alloc(batchBound(batches[0]!.messages));
  const end = writeBatch(plain, 0, batches[0]!.messages);
  assert.deepEqual(gunzipSync(compressed!), plain.subarray(BATCH_HEADER_BYTES, end));
});

test('P2 fractions of a millisecond, falling times and times before 1970 are encoded', () => {
  const times = [1_700_000_000_000.75, 1_600_000_000_000, -5, 0, 8_640_000_000_000_000];
  const batch = times.map((timestampMs, i) => makeMessage({ destination: 't', id: String(i), timestampMs }));
  const buffer = Buffer.alloc(batchBound(batch));
  writeBatch(buffer, 0, batch);
  assert.equal(buffer.readBigInt64BE(27), 1_700_000_000_000n);
  assert.equal(buffer.readBigInt64BE(35), 8_640_000_000_000_000n);
});
