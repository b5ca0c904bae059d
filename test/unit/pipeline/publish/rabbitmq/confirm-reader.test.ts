import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AmqpConnection } from '../../../../../src/pipeline/publish/rabbitmq/amqplib.ts';
import { ConfirmReader } from '../../../../../src/pipeline/publish/rabbitmq/confirm-reader.ts';

const ACK = 80;
const NACK = 120;

function frame(type: number, channel: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(7);
  head[0] = type;
  head.writeUInt16BE(channel, 1);
  head.writeUInt32BE(payload.length, 3);
  return Buffer.concat([head, payload, Buffer.from([0xce])]);
}

function confirm(method: number, channel: number, tag: number, bits = 0): Buffer {
  const payload = Buffer.alloc(13);
  payload.writeUInt16BE(60, 0);
  payload.writeUInt16BE(method, 2);
  payload.writeBigUInt64BE(BigInt(tag), 4);
  payload[12] = bits;
  return frame(1, channel, payload);
}

/** A connection whose library takes whole frames from what was received, and notes their first payload byte. */
function setUp() {
  const seen: string[] = [];
  const connection = {
    rest: Buffer.alloc(0),
    recvFrame(): unknown {
      if (this.rest.length < 8) return false;
      const end = 8 + this.rest.readUInt32BE(3);
      if (this.rest.length < end) return false;
      seen.push(`library ${this.rest[7]}`);
      this.rest = this.rest.subarray(end);
      return {};
    },
  };
  const reader = new ConfirmReader(connection as unknown as AmqpConnection);
  const watch = (channel: number): (() => void) =>
    reader.watch(channel, (tag, multiple, ack) =>
      seen.push(`${channel}: ${ack ? 'ack' : 'nack'} ${tag}${multiple ? ' and before' : ''}`),
    );
  const receive = (...bytes: Buffer[]): string[] => {
    connection.rest = Buffer.concat([connection.rest, ...bytes]);
    while (connection.recvFrame() !== false);
    return seen.splice(0);
  };
  return { connection, watch, receive };
}

test('P1 confirms are read in their order among the frames that are left to the library', () => {
  const { connection, watch, receive } = setUp();
  watch(1);
  watch(2);
  const other = frame(1, 1, Buffer.from([42]));
  const read = receive(
    confirm(ACK, 1, 1),
    confirm(NACK, 2, 7, 0b11),
    other,
    confirm(ACK, 1, 2 ** 32 + 5, 1),
    other,
  );
  assert.deepEqual(read, [
    '1: ack 1',
    '2: nack 7 and before',
    'library 42',
    `1: ack ${2 ** 32 + 5} and before`,
    'library 42',
  ]);
  assert.equal(connection.rest.length, 0);
});

test('a confirm that arrives in pieces is read once it is whole', () => {
  const { watch, receive } = setUp();
  watch(1);
  const bytes = Buffer.concat([confirm(ACK, 1, 1), confirm(ACK, 1, 2)]);
  for (let cut = 0; cut < 21; cut++)
    assert.deepEqual(receive(bytes.subarray(cut, cut + 1)).length, cut === 20 ? 1 : 0);
  assert.deepEqual(receive(bytes.subarray(21)), ['1: ack 2']);
});

test('a channel that nobody watches any more is left to the library', () => {
  const { watch, receive } = setUp();
  const unwatch = watch(1);
  const again = watch(1);
  unwatch();
  assert.deepEqual(receive(confirm(ACK, 1, 1)), ['1: ack 1']);
  again();
  assert.deepEqual(receive(confirm(ACK, 1, 2)), ['library 0']);
});
