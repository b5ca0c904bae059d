import { writeShortAscii } from '../ascii.ts';
import type { Message } from '../../envelope/message.ts';
import { crc32c } from './crc32c.ts';
import type { Stamp } from './sequences.ts';

/**
 * Record batches of Kafka's message format 2, written straight into the buffer that goes to the socket.
 * Format: https://kafka.apache.org/documentation/#recordbatch. `kafkajs`'s own encoder, with a growing buffer for every
 * record and header, costs several times as much; it is the oracle of the differential test.
 */
const HEADER_BYTES = 61;
const OFFSET_OF_LENGTH = 8;
const OFFSET_OF_CRC = 17;
const OFFSET_OF_ATTRIBUTES = 21;
/** Bytes before the records which the batch's length field counts: all but base offset and the length itself. */
const COUNTED_HEADER_BYTES = HEADER_BYTES - 12;

/** Codec numbers in the attributes of a batch. */
export const CODEC = { none: 0, gzip: 1 } as const;

const OWN_HEADERS = new Set(['id', 'eventType', 'contentType']);
const ID = headerName('id');
const EVENT_TYPE = headerName('eventType');
const CONTENT_TYPE = headerName('contentType');

/** No batch of these messages is longer, bytes. Every UTF-16 unit counts as three bytes of UTF-8, its maximum. */
export function batchBound(messages: readonly Message[]): number {
  let bound = HEADER_BYTES;
  for (const message of messages) bound += recordBound(message);
  return bound;
}

/** Fixed parts: length 5, attributes 1, time 10, offset 5, five lengths of 5, header count 5, names and lengths of ours 41. */
const RECORD_OVERHEAD = 92;

function recordBound(message: Message): number {
  const { key, body, headers } = message;
  let units = message.id.length + message.type.length + message.contentType.length;
  if (key !== null) units += key.length;
  let lengths = 0;
  if (headers !== undefined) {
    for (const name in headers) {
      units += name.length + headers[name]!.length;
      lengths += 10;
    }
  }
  return RECORD_OVERHEAD + (body === null ? 0 : body.length) + 3 * units + lengths;
}

/**
 * Writes the batch at `start`. @returns the offset after it.
 * `buffer` must have room for `batchBound(messages)` bytes; `messages` must not be empty.
 */
export function writeBatch(
  buffer: Buffer,
  start: number,
  messages: readonly Message[],
  stamp?: Stamp,
): number {
  const times = timesOf(messages);
  const end = writeRecords(buffer, start + HEADER_BYTES, messages, times.first);
  writeBatchHeader(buffer, start, { end, count: messages.length, codec: CODEC.none, ...times }, stamp);
  return end;
}

/** First and highest time of the messages, whole milliseconds. */
export function timesOf(messages: readonly Message[]): { first: number; max: number } {
  const first = Math.trunc(messages[0]!.timestampMs);
  let max = first;
  for (const message of messages) {
    if (message.timestampMs > max) max = Math.trunc(message.timestampMs);
  }
  return { first, max };
}

export interface BatchHeader {
  readonly end: number;
  readonly count: number;
  readonly codec: number;
  readonly first: number;
  readonly max: number;
}

/** Room that `writeBatchHeader` needs before the records, bytes. */
export const BATCH_HEADER_BYTES = HEADER_BYTES;

/** Fills in the header of a batch whose records already stand between `start + BATCH_HEADER_BYTES` and `header.end`. */
export function writeBatchHeader(buffer: Buffer, start: number, header: BatchHeader, stamp?: Stamp): void {
  const recordBytes = header.end - start - HEADER_BYTES;
  writeInt64(buffer, start, 0);
  buffer.writeInt32BE(COUNTED_HEADER_BYTES + recordBytes, start + OFFSET_OF_LENGTH);
  buffer.writeInt32BE(0, start + 12); // partition leader epoch: the broker's
  buffer[start + 16] = 2; // magic
  buffer.writeInt16BE(header.codec, start + OFFSET_OF_ATTRIBUTES);
  buffer.writeInt32BE(header.count - 1, start + 23);
  writeInt64(buffer, start + 27, header.first);
  writeInt64(buffer, start + 35, header.max);
  if (stamp === undefined) {
    // Not idempotent: producer id, epoch and sequence are -1.
    buffer.fill(0xff, start + 43, start + 57);
  } else {
    buffer.writeBigInt64BE(stamp.producerId, start + 43);
    buffer.writeInt16BE(stamp.epoch, start + 51);
    buffer.writeInt32BE(stamp.sequence, start + 53);
  }
  buffer.writeInt32BE(header.count, start + 57);
  buffer.writeUInt32BE(crc32c(buffer, start + OFFSET_OF_ATTRIBUTES, header.end), start + OFFSET_OF_CRC);
}

/** Writes the records alone. @returns the offset after the last one. */
export function writeRecords(
  buffer: Buffer,
  start: number,
  messages: readonly Message[],
  firstMs: number,
): number {
  let at = start;
  for (let i = 0; i < messages.length; i++) at = writeRecord(buffer, at, messages[i]!, i, firstMs);
  return at;
}

/**
 * The length comes first and is known last: room for it is guessed from the lengths of the parts, and the record moved
 * when the guess was wrong (lengths near 64 or 8192, much text beyond ASCII).
 */
function writeRecord(
  buffer: Buffer,
  start: number,
  message: Message,
  index: number,
  firstMs: number,
): number {
  const { key, body } = message;
  const guess =
    (body === null ? 0 : body.length) +
    (key === null ? 0 : key.length) +
    message.id.length +
    message.type.length;
  const reserved = varintSize(guess + message.contentType.length + 35);
  let at = start + reserved;
  buffer[at++] = 0; // attributes
  at = writeVarint(buffer, at, Math.trunc(message.timestampMs) - firstMs);
  at = writeVarint(buffer, at, index);
  at = key === null ? writeVarint(buffer, at, -1) : writeText(buffer, at, key);
  if (body === null) {
    at = writeVarint(buffer, at, -1);
  } else {
    at = writeVarint(buffer, at, body.length);
    body.copy(buffer, at);
    at += body.length;
  }
  at = writeHeaders(buffer, at, message);
  const length = at - start - reserved;
  const needed = varintSize(length);
  if (needed !== reserved) {
    buffer.copyWithin(start + needed, start + reserved, at);
    at += needed - reserved;
  }
  writeVarint(buffer, start, length);
  return at;
}

function writeHeaders(buffer: Buffer, start: number, message: Message): number {
  const { headers } = message;
  let count = 3;
  if (headers !== undefined) {
    for (const name in headers) if (!OWN_HEADERS.has(name)) count++;
  }
  let at = writeVarint(buffer, start, count);
  at = writeText(buffer, writeBytes(buffer, at, ID), message.id);
  at = writeText(buffer, writeBytes(buffer, at, EVENT_TYPE), message.type);
  at = writeText(buffer, writeBytes(buffer, at, CONTENT_TYPE), message.contentType);
  if (headers === undefined) return at;
  for (const name in headers) {
    if (!OWN_HEADERS.has(name)) at = writeText(buffer, writeText(buffer, at, name), headers[name]!);
  }
  return at;
}

/** Varint length and UTF-8 bytes. */
function writeText(buffer: Buffer, at: number, text: string): number {
  if (writeShortAscii(buffer, at + 1, text)) {
    buffer[at] = text.length << 1;
    return at + 1 + text.length;
  }
  const bytes = Buffer.byteLength(text);
  const start = writeVarint(buffer, at, bytes);
  buffer.write(text, start, bytes, 'utf8');
  return start + bytes;
}

function writeBytes(buffer: Buffer, at: number, bytes: Uint8Array): number {
  for (let i = 0; i < bytes.length; i++) buffer[at + i] = bytes[i]!;
  return at + bytes.length;
}

/** Zig-zag varint. Whole numbers to ±2^52, so that a time difference of any two events fits. */
function writeVarint(buffer: Buffer, start: number, value: number): number {
  let at = start;
  let rest = value >= 0 ? value * 2 : value * -2 - 1;
  while (rest >= 0x80) {
    buffer[at++] = (rest % 0x80) + 0x80;
    rest = Math.floor(rest / 0x80);
  }
  buffer[at++] = rest;
  return at;
}

function varintSize(length: number): number {
  if (length < 64) return 1;
  if (length < 8192) return 2;
  if (length < 1048576) return 3;
  return length < 134217728 ? 4 : 5;
}

function writeInt64(buffer: Buffer, at: number, value: number): void {
  const high = Math.floor(value / 0x100000000);
  buffer.writeInt32BE(high, at);
  buffer.writeUInt32BE(value - high * 0x100000000, at + 4);
}

function headerName(name: string): Uint8Array {
  return Uint8Array.of(name.length << 1, ...Buffer.from(name));
}
