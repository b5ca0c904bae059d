import { tupleEnd, TupleRow, type Relation } from './tuple-row.ts';

/**
 * Small tuples share a buffer of this size, which is freed with its last event. One that waits while the others leave has
 * to be moved out of it (`Row.own`): fifty thousand would keep 800 MB.
 */
const SHARED_BYTES = 16_384;

/** Copies tuples out of the read buffer, which is large and used again. */
export class TupleStore {
  private shared = Buffer.alloc(0);
  private used = 0;

  /** Throws TypeError when the tuple does not have the relation's shape. */
  add(relation: Relation, buffer: Buffer, start: number, end: number): TupleRow {
    if (tupleEnd(relation, buffer, start) > end) throw new TypeError('pgoutput: tuple runs past its message');
    const length = end - start;
    const shares = length <= SHARED_BYTES / 4;
    if (shares && this.used + length > this.shared.length) {
      this.shared = Buffer.allocUnsafeSlow(SHARED_BYTES);
      this.used = 0;
    }
    const target = shares ? this.shared : Buffer.allocUnsafeSlow(length);
    const at = shares ? this.used : 0;
    if (shares) this.used += length;
    buffer.copy(target, at, start, end);
    return new TupleRow(relation, target, at);
  }
}
