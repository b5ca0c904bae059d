import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import { ByteRange, viewOf } from '../../../../../src/pipeline/capture/byte-range.ts';
import type { Message } from '../../../../../src/pipeline/envelope/message.ts';
import { headersOf } from '../../../../../src/pipeline/publish/rabbitmq/properties.ts';
import { publishBound, writePublish } from '../../../../../src/pipeline/publish/rabbitmq/publish-frames.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';

interface Library {
  Connection: { prototype: { sendMessage(this: object, ...args: unknown[]): boolean } };
}

const require = createRequire(import.meta.url);
const folder = dirname(require.resolve('amqplib'));
const { Connection } = require(join(folder, 'lib/connection.js')) as Library;
const defs = require(join(folder, 'lib/defs.js')) as Record<string, number>;
const { publish } = require(join(folder, 'lib/api_args.js')) as {
  publish: (exchange: string, routingKey: string, options: object) => object;
};

/** What `amqplib` sends for the message; undefined when it refuses. */
function byLibrary(message: Message, channel: number, frameMax: number): Buffer | undefined {
  const written: Buffer[] = [];
  const buffer = { write: (bytes: Buffer) => written.push(bytes) > 0 };
  const connection = Object.create(Connection.prototype, {
    frameMax: { value: frameMax },
    channels: { value: { [channel]: { buffer } } },
    sentSinceLastCheck: { writable: true },
  }) as Library['Connection']['prototype'];
  try {
    const fields = publish(message.destination, message.routingKey, {
      mandatory: true,
      persistent: true,
      messageId: message.id,
      type: message.type,
      contentType: message.contentType,
      timestamp: Math.floor(message.timestampMs / 1000),
      headers: headersOf(message),
    });
    const body = viewOf(message.body) ?? Buffer.alloc(0);
    const { BasicPublish, BasicProperties } = defs;
    connection.sendMessage(channel, BasicPublish, fields, BasicProperties, fields, body);
  } catch {
    return undefined;
  }
  return Buffer.concat(written);
}

/** What is sent; undefined when it is refused. Throws when more room was needed than asked for. */
function byUs(message: Message, channel: number, frameMax: number): Buffer | undefined {
  try {
    const start = 7;
    const bound = publishBound(message, frameMax);
    const buffer = Buffer.alloc(start + bound, 0xaa);
    const end = writePublish(buffer, start, message, { channel, frameMax });
    assert.ok(end <= start + bound, `${end - start} bytes, ${bound} were asked for`);
    return buffer.subarray(start, end);
  } catch (error) {
    assert.ok(error instanceof RangeError, String(error));
    return undefined;
  }
}

const text = (maxLength: number) =>
  fc.oneof(
    { weight: 4, arbitrary: fc.string({ maxLength }) },
    { weight: 3, arbitrary: fc.string({ unit: 'binary', maxLength }) },
    { weight: 1, arbitrary: fc.string({ unit: fc.constantFrom('a', 'é', '\ud800', '😀', '\0'), maxLength }) },
    { weight: 1, arbitrary: fc.integer({ min: 60, max: 260 }).map((length) => 'x'.repeat(length)) },
  );

const headers = fc.option(
  fc.dictionary(fc.oneof(text(20), fc.constantFrom('key', 'null-payload', '7', 'toString')), text(100), {
    maxKeys: 6,
    noNullPrototype: false,
  }),
  { nil: undefined },
);

const body = fc.oneof(
  fc.constant(null),
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  fc
    .uint8Array({ maxLength: 100 })
    .map((bytes) => new ByteRange(Buffer.from([1, 2, ...bytes, 3]), 2, bytes.length + 2)),
  // Around the length at which a body is split, and beyond it.
  fc.integer({ min: 4_080, max: 4_100 }).map((length) => Buffer.alloc(length, 'b')),
  fc
    .integer({ min: 4_000, max: 40_000 })
    .map((length) => new ByteRange(Buffer.alloc(length, 'r'), 0, length)),
);

const message = fc
  .record({
    destination: text(60),
    id: text(60),
    type: text(60),
    contentType: text(60),
    routing: text(60),
    key: fc.option(text(60)),
    keyElsewhere: fc.boolean(),
    timestampMs: fc.oneof(
      fc.integer({ min: -5_000, max: 5_000 }),
      fc.integer({ min: 0, max: 8_640_000_000_000_000 }),
      fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, 0.5),
    ),
    headers,
    body,
  })
  .map(({ keyElsewhere, routing, ...parts }): Message => {
    const routingKey = keyElsewhere ? routing : (parts.key ?? '');
    return makeMessage({ ...parts, routingKey });
  });

describe('frames of basic.publish', () => {
  test('P2 the bytes are those of the library, for what it takes, and refused is what it refuses', () => {
    let refused = 0;
    let runs = 0;
    fc.assert(
      fc.property(message, fc.integer({ min: 1, max: 65_535 }), (each, channel) => {
        const expected = byLibrary(each, channel, 4_096);
        runs++;
        if (expected === undefined) refused++;
        assert.deepEqual(byUs(each, channel, 4_096), expected);
      }),
      { numRuns: 2_000 },
    );
    assert.ok(refused > 0 && refused < runs / 2, `${refused} of ${runs} were refused`);
  });

  test('P2 a body of many frames, and headers up to the limit', () => {
    const frameMax = 131_072;
    for (const bytes of [131_064, 131_065, 262_128, 3_000_000]) {
      const each = makeMessage({ destination: 'x', id: 'i', body: Buffer.alloc(bytes, 'x') });
      assert.deepEqual(byUs(each, 1, frameMax), byLibrary(each, 1, frameMax));
    }
    // A name of one byte, and the lengths: 11 bytes beside the text.
    for (const [length, taken] of [
      [65_536 - 11, true],
      [65_536 - 10, false],
    ] as const) {
      const each = makeMessage({ destination: 'x', id: 'i', headers: { h: 'x'.repeat(length) } });
      assert.equal(byUs(each, 1, frameMax) !== undefined, taken);
      assert.deepEqual(byUs(each, 1, frameMax), byLibrary(each, 1, frameMax));
    }
  });

  test('P2 the room asked for is just enough when every character takes three bytes', () => {
    const euros = '\u20ac'.repeat(80);
    const parts = { destination: euros, id: euros, type: euros, contentType: euros, key: euros };
    const each = makeMessage({
      ...parts,
      routingKey: euros.slice(1),
      headers: { [euros]: euros },
      body: null,
    });
    assert.equal(byUs(each, 1, 131_072)?.length, publishBound(each, 131_072));
    assert.deepEqual(byUs(each, 1, 131_072), byLibrary(each, 1, 131_072));
  });

  test('headers that can never be sent ask for no room', () => {
    const each = makeMessage({ destination: 'x', id: 'i', headers: { h: 'x'.repeat(16_000_000) } });
    assert.throws(() => publishBound(each, 131_072), RangeError);
  });
});

test('amqplib is the version whose internals the relay builds on', () => {
  const { version } = require(join(folder, 'package.json')) as { version: string };
  assert.equal(version, '2.3.1');
});
