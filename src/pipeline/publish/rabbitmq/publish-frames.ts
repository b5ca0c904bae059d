import { writeShortAscii } from '../ascii.ts';
import { viewOf } from '../../capture/byte-range.ts';
import type { Message } from '../../envelope/message.ts';
import { headersOf } from './properties.ts';

/**
 * The frames of `basic.publish`, written straight into the buffer that goes to the socket. The library's encoder makes
 * five Buffers of a message and as many writes; it is the oracle of the differential test.
 * Format: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, 4.2.3 to 4.2.6.
 */
const FRAME_METHOD = 1;
const FRAME_HEADER = 2;
const FRAME_BODY = 3;
const FRAME_END = 0xce;
/** Type, channel and size before the payload. */
const FRAME_HEAD_BYTES = 7;
/** Head and end. */
const FRAME_OVERHEAD_BYTES = FRAME_HEAD_BYTES + 1;

const CLASS_BASIC = 60;
const METHOD_PUBLISH = 40;
const MANDATORY = 1;
const PERSISTENT = 2;
/** Which properties follow: content type, headers, delivery mode, message id, timestamp, type. */
const PROPERTY_FLAGS = 0x8000 | 0x2000 | 0x1000 | 0x0080 | 0x0040 | 0x0020;

/** A length of one byte stands before names, keys and ids. */
const MAX_SHORT_BYTES = 255;
/** As much as the library takes: RabbitMQ wants all properties in one frame, of 128 KiB where nobody changed it. */
const MAX_HEADERS_BYTES = 65_536;

/** First frame 17, second 38, and the names of the two headers of ours, 24. */
const FIXED_BYTES = 79;
/** Of one header: its name's length, the type of its value, the value's length. */
const HEADER_OVERHEAD_BYTES = 6;

export interface FrameOptions {
  readonly channel: number;
  /** Longest frame that was agreed on, bytes. */
  readonly frameMax: number;
}

/**
 * The frames of this message are not longer, bytes. A UTF-16 unit counts as three bytes of UTF-8, its maximum.
 * Throws a RangeError rather than ask for room for headers that can't be sent.
 */
export function publishBound(message: Message, frameMax: number): number {
  const { body, headers, key } = message;
  let bytes = FIXED_BYTES;
  let headerUnits = key === null ? 0 : key.length;
  if (headers !== undefined) {
    for (const name in headers) {
      headerUnits += name.length + headers[name]!.length;
      bytes += HEADER_OVERHEAD_BYTES;
    }
  }
  checkHeaders(headerUnits);
  if (body !== null) bytes += body.length + bodyFrames(body.length, frameMax) * FRAME_OVERHEAD_BYTES;
  const { destination, routingKey, contentType, id, type } = message;
  const units = destination.length + routingKey.length + contentType.length + id.length + type.length;
  return bytes + 3 * (units + headerUnits);
}

/**
 * Writes the message at `start`. @returns the offset after it.
 * `buffer` must have room for `publishBound(message)` bytes. Throws a RangeError: what then stands behind `start` is
 * not to be sent.
 */
export function writePublish(buffer: Buffer, start: number, message: Message, options: FrameOptions): number {
  const properties = writeMethod(buffer, start, message, options.channel);
  const body = writeProperties(buffer, properties, message, options.channel);
  return writeBody(buffer, body, message.body, options);
}

function writeMethod(buffer: Buffer, start: number, message: Message, channel: number): number {
  buffer[start] = FRAME_METHOD;
  writeUint16(buffer, start + 1, channel);
  let at = start + FRAME_HEAD_BYTES;
  at = writeUint16(buffer, at, CLASS_BASIC);
  at = writeUint16(buffer, at, METHOD_PUBLISH);
  at = writeUint16(buffer, at, 0); // reserved
  at = writeShort(buffer, at, message.destination, 'the name of the exchange');
  at = writeShort(buffer, at, message.routingKey, 'the routing key');
  buffer[at++] = MANDATORY;
  return endFrame(buffer, start, at);
}

function writeProperties(buffer: Buffer, start: number, message: Message, channel: number): number {
  buffer[start] = FRAME_HEADER;
  writeUint16(buffer, start + 1, channel);
  let at = start + FRAME_HEAD_BYTES;
  at = writeUint16(buffer, at, CLASS_BASIC);
  at = writeUint16(buffer, at, 0); // reserved
  at = writeUint64(buffer, at, message.body === null ? 0 : message.body.length);
  at = writeUint16(buffer, at, PROPERTY_FLAGS);
  at = writeShort(buffer, at, message.contentType, 'the content type');
  at = writeHeaders(buffer, at, message);
  buffer[at++] = PERSISTENT;
  at = writeShort(buffer, at, message.id, 'the message id');
  at = writeUint64(buffer, at, secondsOf(message));
  at = writeShort(buffer, at, message.type, 'the type');
  return endFrame(buffer, start, at);
}

/** AMQP 0-9-1 has whole seconds only, and none before 1970. */
function secondsOf({ timestampMs }: Message): number {
  const seconds = Math.floor(timestampMs / 1000);
  if (seconds >= 0 && seconds <= Number.MAX_SAFE_INTEGER) return seconds;
  throw new RangeError(`${timestampMs} ms since 1970 is not a time that it has`);
}

function writeHeaders(buffer: Buffer, start: number, message: Message): number {
  const headers = headersOf(message);
  let at = start + 4;
  if (headers !== undefined) {
    for (const name in headers) {
      const value = headers[name]!;
      at = writeShort(buffer, at, name, 'the name of a header');
      at = value === true ? writeTrue(buffer, at) : writeLong(buffer, at, value);
    }
  }
  checkHeaders(at - start);
  writeUint32(buffer, start, at - start - 4);
  return at;
}

function checkHeaders(bytes: number): void {
  if (bytes <= MAX_HEADERS_BYTES) return;
  throw new RangeError(`the headers are longer than ${MAX_HEADERS_BYTES} bytes`);
}

function writeTrue(buffer: Buffer, at: number): number {
  buffer[at] = 0x74; // t
  buffer[at + 1] = 1;
  return at + 2;
}

function writeLong(buffer: Buffer, at: number, text: string): number {
  buffer[at] = 0x53; // S
  const end = writeText(buffer, at + 5, text);
  writeUint32(buffer, at + 1, end - at - 5);
  return end;
}

function writeShort(buffer: Buffer, at: number, text: string, what: string): number {
  // Not written first: it may be far longer than what was reserved for a name.
  const end = text.length > MAX_SHORT_BYTES ? Infinity : writeText(buffer, at + 1, text);
  if (end - at - 1 > MAX_SHORT_BYTES) {
    throw new RangeError(`${what} is longer than ${MAX_SHORT_BYTES} bytes`);
  }
  buffer[at] = end - at - 1;
  return end;
}

/** UTF-8. */
function writeText(buffer: Buffer, at: number, text: string): number {
  if (writeShortAscii(buffer, at, text)) return at + text.length;
  return at + buffer.write(text, at, 'utf8');
}

function writeBody(buffer: Buffer, start: number, body: Message['body'], options: FrameOptions): number {
  if (body === null || body.length === 0) return start;
  const payloadMax = options.frameMax - FRAME_OVERHEAD_BYTES;
  if (body.length <= payloadMax) {
    body.copy(buffer, start + FRAME_HEAD_BYTES);
    return endBodyFrame(buffer, start, body.length, options.channel);
  }
  const bytes = viewOf<never>(body);
  let at = start;
  for (let from = 0; from < bytes.length; from += payloadMax) {
    const length = bytes.copy(buffer, at + FRAME_HEAD_BYTES, from, from + payloadMax);
    at = endBodyFrame(buffer, at, length, options.channel);
  }
  return at;
}

function endBodyFrame(buffer: Buffer, start: number, length: number, channel: number): number {
  buffer[start] = FRAME_BODY;
  writeUint16(buffer, start + 1, channel);
  return endFrame(buffer, start, start + FRAME_HEAD_BYTES + length);
}

function bodyFrames(bytes: number, frameMax: number): number {
  return Math.ceil(bytes / (frameMax - FRAME_OVERHEAD_BYTES));
}

/** Completes the frame whose payload ends before `at`: its size, and its end. */
function endFrame(buffer: Buffer, start: number, at: number): number {
  writeUint32(buffer, start + 3, at - start - FRAME_HEAD_BYTES);
  buffer[at] = FRAME_END;
  return at + 1;
}

function writeUint16(buffer: Buffer, at: number, value: number): number {
  buffer[at] = value >>> 8;
  buffer[at + 1] = value;
  return at + 2;
}

function writeUint32(buffer: Buffer, at: number, value: number): number {
  writeUint16(buffer, at, value >>> 16);
  return writeUint16(buffer, at + 2, value);
}

function writeUint64(buffer: Buffer, at: number, value: number): number {
  writeUint32(buffer, at, Math.floor(value / 0x1_0000_0000));
  return writeUint32(buffer, at + 4, value);
}
