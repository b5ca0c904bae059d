import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  API_VERSIONS,
  decodeApiVersions,
  decodeMetadata,
  decodeProduce,
  encodeMetadata,
  METADATA,
  requestHeader,
} from '../../../../../src/pipeline/publish/kafka/protocol.ts';

/** kafkajs's own encoder and decoders are the oracle: the same bytes out, the same answer in. */
const require = createRequire(import.meta.url);

interface Encoder {
  readonly buffer: Buffer;
  writeInt8(value: number): Encoder;
  writeInt16(value: number): Encoder;
  writeInt32(value: number): Encoder;
  writeInt64(value: number): Encoder;
  writeString(value: string | null): Encoder;
  writeArray(items: readonly unknown[]): Encoder;
}

interface Decoder<T> {
  readonly decode: (payload: Buffer) => Promise<T>;
}

type Answer<T> = T & Record<string, unknown>;

const Encoder = require('kafkajs/src/protocol/encoder') as new () => Encoder;
const createRequest = require('kafkajs/src/protocol/request') as (
  parts: object,
) => Promise<{ buffer: Buffer }>;
const metadataRequest = require('kafkajs/src/protocol/requests/metadata/v5/request') as (
  parts: object,
) => object;
const apiVersionsRequest = require('kafkajs/src/protocol/requests/apiVersions/v1/request') as () => object;
const oracle = {
  produce: require('kafkajs/src/protocol/requests/produce/v7/response') as Decoder<
    Answer<{ clientSideThrottleTime: number }>
  >,
  metadata: require('kafkajs/src/protocol/requests/metadata/v5/response') as Decoder<object>,
  apiVersions: require('kafkajs/src/protocol/requests/apiVersions/v1/response') as Decoder<{
    apiVersions: readonly { apiKey: number; minVersion: number; maxVersion: number }[];
  }>,
};

const text = fc.oneof(
  fc.string({ maxLength: 40 }),
  fc.string({ unit: 'grapheme', maxLength: 40 }),
  fc.constant('é'.repeat(300)),
);
const int16 = fc.integer({ min: -(2 ** 15), max: 2 ** 15 - 1 });
const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });

function many<T>(one: fc.Arbitrary<T>): fc.Arbitrary<T[]> {
  return fc.array(one, { maxLength: 4 });
}

const produceAnswer = fc
  .tuple(many(fc.tuple(text, many(fc.tuple(int32, int16, int32)))), int32)
  .map(([topics, throttleTimeMs]) => {
    const partition = ([index, errorCode, offset]: [number, number, number]): Encoder =>
      new Encoder().writeInt32(index).writeInt16(errorCode).writeInt64(offset).writeInt64(-1).writeInt64(0);
    const topic = ([name, partitions]: (typeof topics)[number]): Encoder =>
      new Encoder().writeString(name).writeArray(partitions.map(partition));
    return new Encoder().writeArray(topics.map(topic)).writeInt32(throttleTimeMs).buffer;
  });

const broker = fc
  .tuple(int32, text, int32, fc.option(text))
  .map(([nodeId, host, port, rack]) =>
    new Encoder().writeInt32(nodeId).writeString(host).writeInt32(port).writeString(rack),
  );
const partition = fc
  .tuple(int16, int32, int32, many(int32), many(int32), many(int32))
  .map(([errorCode, index, leader, ...lists]) => {
    const encoder = new Encoder().writeInt16(errorCode).writeInt32(index).writeInt32(leader);
    for (const list of lists) encoder.writeArray(list);
    return encoder;
  });
const topic = fc
  .tuple(int16, text, fc.boolean(), many(partition))
  .map(([errorCode, name, internal, partitions]) =>
    new Encoder()
      .writeInt16(errorCode)
      .writeString(name)
      .writeInt8(internal ? 1 : 0)
      .writeArray(partitions),
  );
const metadataAnswer = fc
  .tuple(int32, many(broker), fc.option(text), int32, many(topic))
  .map(
    ([throttleMs, brokers, clusterId, controller, topics]) =>
      new Encoder()
        .writeInt32(throttleMs)
        .writeArray(brokers)
        .writeString(clusterId)
        .writeInt32(controller)
        .writeArray(topics).buffer,
  );

const apiVersionsAnswer = fc
  .tuple(fc.uniqueArray(fc.tuple(int16, int16, int16), { selector: ([key]) => key, maxLength: 8 }), int32)
  .map(([versions, throttleMs]) => {
    const one = ([key, min, max]: [number, number, number]): Encoder =>
      new Encoder().writeInt16(key).writeInt16(min).writeInt16(max);
    return new Encoder().writeInt16(0).writeArray(versions.map(one)).writeInt32(throttleMs).buffer;
  });

const DECODERS = [
  ['Produce', decodeProduce, produceAnswer],
  ['Metadata', decodeMetadata, metadataAnswer],
  ['ApiVersions', decodeApiVersions, apiVersionsAnswer],
] as const;

test('requests for metadata and versions are the same, byte for byte, as those of kafkajs', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(text, { minLength: 1, maxLength: 4 }),
      int32,
      text,
      async (topics, correlationId, clientId) => {
        for (const [given, body, request] of [
          [METADATA, encodeMetadata(topics), metadataRequest({ topics })],
          [API_VERSIONS, Buffer.alloc(0), apiVersionsRequest()],
        ] as const) {
          const expected = await createRequest({ correlationId, clientId, request });
          const header = requestHeader({ ...given, body }, correlationId, clientId);
          assert.deepEqual(Buffer.concat([header, body]), expected.buffer, given.name);
        }
      },
    ),
  );
});

test('without topics, metadata is asked for the brokers alone; that of kafkajs asks for every topic', () => {
  assert.deepEqual(encodeMetadata([]), Buffer.from([0, 0, 0, 0, 1]));
});

test('P1 an answer to Produce is read as kafkajs reads it', async () => {
  await fc.assert(
    fc.asyncProperty(produceAnswer, async (payload) => {
      const { clientSideThrottleTime, ...expected } = await oracle.produce.decode(payload);
      const { throttleTimeMs, ...read } = decodeProduce(payload);
      assert.equal(throttleTimeMs, clientSideThrottleTime);
      assertContains(expected, read);
    }),
  );
});

test('metadata is read as kafkajs reads it', async () => {
  await fc.assert(
    fc.asyncProperty(metadataAnswer, async (payload) =>
      assertContains(await oracle.metadata.decode(payload), decodeMetadata(payload)),
    ),
  );
});

test('versions are read as kafkajs reads them', async () => {
  await fc.assert(
    fc.asyncProperty(apiVersionsAnswer, async (payload) => {
      const { apiVersions } = await oracle.apiVersions.decode(payload);
      const expected = apiVersions.map(({ apiKey, ...range }) => [apiKey, range] as const);
      assert.deepEqual(decodeApiVersions(payload), Object.fromEntries(expected));
    }),
  );
});

/** The relay reads a part of the fields only. */
function assertContains(whole: unknown, part: unknown): void {
  if (typeof part !== 'object' || part === null) {
    assert.equal(part, whole);
    return;
  }
  if (Array.isArray(part)) assert.equal(part.length, (whole as readonly unknown[]).length);
  for (const [name, value] of Object.entries(part)) {
    assertContains((whole as Record<string, unknown>)[name], value);
  }
}

for (const [name, decode, answer] of DECODERS) {
  // What stands behind the last field that is read may be missing.
  const unread = name === 'ApiVersions' ? 4 : 0;

  test(`P1 an answer to ${name} that is cut short anywhere is an error, never read beyond its end`, () => {
    fc.assert(
      fc.property(answer, fc.nat(), (payload, at) => {
        const length = at % (payload.length - unread);
        // Behind the cut stands what would be taken for the rest.
        const behind = Buffer.concat([payload, payload]);
        assert.throws(() => decode(behind.subarray(0, length)), RangeError);
      }),
    );
  });

  test(`P10 rubbish instead of an answer to ${name} is an error or an answer, at once and in little memory`, () => {
    const worst = [Buffer.alloc(64, 0xff), Buffer.alloc(64, 0x7f), Buffer.alloc(0)];
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 400 }).map((given) => Buffer.from(given)),
      fc
        .tuple(answer, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 4 }))
        .map(([payload, at, noise]) => overwritten(payload, at, noise)),
      fc.constantFrom(...worst),
    );
    fc.assert(
      fc.property(bytes, (payload) => {
        const started = performance.now();
        try {
          decode(payload);
        } catch (error) {
          assert.ok(error instanceof RangeError, String(error));
        }
        assert.ok(performance.now() - started < 500);
      }),
    );
  });
}

function overwritten(payload: Buffer, at: number, noise: Uint8Array): Buffer {
  const copy = Buffer.from(payload);
  copy.set(noise.subarray(0, copy.length), at % (copy.length - Math.min(copy.length, noise.length) + 1));
  return copy;
}
