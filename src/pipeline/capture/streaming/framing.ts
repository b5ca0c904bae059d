/** Receives one backend message: its type byte, and where its body lies. The bytes belong to the framer until it returns. */
export type OnFrame = (type: number, buffer: Buffer, start: number, end: number) => void;

const HEADER_BYTES = 5;

/**
 * Cuts the server's byte stream into messages: one type byte, a 32-bit length that counts itself, the body
 * (https://www.postgresql.org/docs/current/protocol-message-formats.html). Whole messages are handed out in place;
 * only one that spans reads is copied, once, however many reads it takes: joining at every read would make a 50 MB
 * payload cost gigabytes of copying.
 */
export class Framer {
  private readonly parts: Buffer[] = [];
  private partsBytes = 0;
  private neededBytes = HEADER_BYTES;

  push(chunk: Buffer, onFrame: OnFrame): void {
    let buffer = chunk;
    if (this.parts.length > 0) {
      this.parts.push(chunk);
      this.partsBytes += chunk.length;
      if (this.partsBytes < this.neededBytes) return;
      buffer = Buffer.concat(this.parts, this.partsBytes);
      this.parts.length = 0;
    }
    let offset = 0;
    while (buffer.length - offset >= HEADER_BYTES) {
      const end = offset + 1 + buffer.readUInt32BE(offset + 1);
      if (end > buffer.length) {
        this.keep(buffer, offset, end - offset);
        return;
      }
      onFrame(buffer[offset] as number, buffer, offset + HEADER_BYTES, end);
      offset = end;
    }
    if (offset < buffer.length) this.keep(buffer, offset, HEADER_BYTES);
  }

  private keep(buffer: Buffer, offset: number, neededBytes: number): void {
    const rest = buffer.subarray(offset);
    this.parts.push(rest);
    this.partsBytes = rest.length;
    this.neededBytes = neededBytes;
  }
}
