import { LargeFrame } from './large-frame.ts';

/**
 * Receives one backend message: its type byte, and where its body lies. The bytes belong to the framer until it
 * returns. `leftOutBytes`: of a row that was too large, bytes of the values that are not there.
 */
export type OnFrame = (
  type: number,
  buffer: Buffer,
  start: number,
  end: number,
  leftOutBytes: number,
) => void;

const HEADER_BYTES = 5;

/**
 * Cuts the server's byte stream into messages: one type byte, a 32-bit length that counts itself, the body
 * (https://www.postgresql.org/docs/current/protocol-message-formats.html). Whole messages are handed out in place;
 * only one that spans reads is copied, once, however many reads it takes: joining at every read would make a 50 MB
 * payload cost gigabytes of copying. One of more than `maxFrameBytes` is never held: see `LargeFrame`.
 */
export class Framer {
  private readonly parts: Buffer[] = [];
  private partsBytes = 0;
  private neededBytes = HEADER_BYTES;
  private large: LargeFrame | undefined;
  private readonly maxFrameBytes: number;

  constructor(maxFrameBytes: number) {
    this.maxFrameBytes = maxFrameBytes;
  }

  push(chunk: Buffer, onFrame: OnFrame): void {
    let buffer = chunk;
    let offset = this.large ? this.pushLarge(this.large, chunk, 0, onFrame) : 0;
    if (this.parts.length > 0) {
      this.parts.push(chunk);
      this.partsBytes += chunk.length;
      if (this.partsBytes < this.neededBytes) return;
      buffer = Buffer.concat(this.parts, this.partsBytes);
      this.parts.length = 0;
    }
    while (buffer.length - offset >= HEADER_BYTES) {
      const end = offset + 1 + buffer.readUInt32BE(offset + 1);
      if (end - offset > this.maxFrameBytes) {
        this.large = new LargeFrame(end - offset);
        offset = this.pushLarge(this.large, buffer, offset, onFrame);
        continue;
      }
      if (end > buffer.length) {
        this.keep(buffer, offset, end - offset);
        return;
      }
      onFrame(buffer[offset] as number, buffer, offset + HEADER_BYTES, end, 0);
      offset = end;
    }
    if (offset < buffer.length) this.keep(buffer, offset, HEADER_BYTES);
  }

  private pushLarge(large: LargeFrame, chunk: Buffer, offset: number, onFrame: OnFrame): number {
    const end = large.push(chunk, offset);
    if (!large.complete) return end;
    this.large = undefined;
    const message = large.message();
    if (message) onFrame(message[0] as number, message, HEADER_BYTES, message.length, large.leftOutBytes);
    return end;
  }

  private keep(buffer: Buffer, offset: number, neededBytes: number): void {
    const rest = buffer.subarray(offset);
    this.parts.push(rest);
    this.partsBytes = rest.length;
    this.neededBytes = neededBytes;
  }
}
