/** Values up to here are kept: they tell a row from others, and fit into a dead letter. */
const KEPT_VALUE_BYTES = 65_536;
const COPY_DATA = 0x64; // d
const XLOG_DATA = 0x77; // w
const INSERT = 0x49; // I
const VALUE_TEXT = 0x74; // t
const VALUE_NULL = 0x6e; // n
const FRAME_HEADER_BYTES = 5;
const XLOG_HEADER_BYTES = 25;
/** Kind, relation, `N`, number of columns. */
const INSERT_HEADER_BYTES = 8;
const FIXED_BYTES = FRAME_HEADER_BYTES + XLOG_HEADER_BYTES + INSERT_HEADER_BYTES;
const VALUE_HEADER_BYTES = 5;

/**
 * Reads an inserted row that is too large to be held: large values are left out while they pass by, so that what is
 * kept of a gigabyte is a few kilobytes. Any other message of that size is passed over, as the decoder would do.
 */
export class LargeFrame {
  private readonly totalBytes: number;
  private readonly kept: Buffer[] = [];
  /** What is being put together: the fixed part, then the header of each value. */
  private part: Buffer = Buffer.alloc(0);
  private wantedBytes = FIXED_BYTES;
  private seenBytes = 0;
  private valueBytes = 0;
  private keepsValue = false;
  private passesOver = false;
  /** Bytes of the values that are left out. */
  leftOutBytes = 0;

  /** `totalBytes`: of the whole message with its header. */
  constructor(totalBytes: number) {
    this.totalBytes = totalBytes;
  }

  get complete(): boolean {
    return this.seenBytes === this.totalBytes;
  }

  /** Takes what belongs to the message from `offset` on; returns the offset behind it. */
  push(chunk: Buffer, offset: number): number {
    const end = Math.min(chunk.length, offset + this.totalBytes - this.seenBytes);
    this.seenBytes += end - offset;
    let at = offset;
    while (at < end && !this.passesOver) {
      at = this.valueBytes > 0 ? this.takeValue(chunk, at, end) : this.takeHeader(chunk, at, end);
    }
    return end;
  }

  /** The message as it would be with NULL for the values left out; undefined: there is nothing to read. */
  message(): Buffer | undefined {
    return this.passesOver ? undefined : Buffer.concat(this.kept);
  }

  private takeValue(chunk: Buffer, at: number, end: number): number {
    const to = Math.min(end, at + this.valueBytes);
    if (this.keepsValue) this.kept.push(Buffer.from(chunk.subarray(at, to)));
    this.valueBytes -= to - at;
    return to;
  }

  private takeHeader(chunk: Buffer, at: number, end: number): number {
    const to = Math.min(end, at + this.wantedBytes - this.part.length);
    this.part = Buffer.concat([this.part, chunk.subarray(at, to)]);
    if (this.part.length === this.wantedBytes) {
      if (this.kept.length === 0) this.beginRow();
      else this.beginValue();
    }
    return to;
  }

  private beginRow(): void {
    const { part } = this;
    const xlogAt = FRAME_HEADER_BYTES;
    const isRow = part[0] === COPY_DATA && part[xlogAt] === XLOG_DATA;
    this.passesOver = !isRow || part[xlogAt + XLOG_HEADER_BYTES] !== INSERT;
    this.keepPart();
  }

  private beginValue(): void {
    const { part } = this;
    if (part[0] === VALUE_TEXT && part.length < VALUE_HEADER_BYTES) {
      this.wantedBytes = VALUE_HEADER_BYTES;
      return;
    }
    if (part[0] === VALUE_TEXT) {
      this.valueBytes = part.readUInt32BE(1);
      this.keepsValue = this.valueBytes <= KEPT_VALUE_BYTES;
      if (!this.keepsValue) {
        this.leftOutBytes += this.valueBytes;
        this.part = Buffer.from([VALUE_NULL]);
      }
    }
    this.keepPart();
  }

  private keepPart(): void {
    this.kept.push(this.part);
    this.part = Buffer.alloc(0);
    // A value's kind: behind NULL there is nothing.
    this.wantedBytes = 1;
  }
}
