import { endianness } from 'node:os';

/**
 * CRC-32C (Castagnoli), which Kafka checks over every record batch; `zlib.crc32` has another polynomial.
 * Eight bytes a step ("slicing by 8", Kounavis and Berry): byte by byte, this sum alone would cost more than the rest of
 * the encoder.
 */
const POLYNOMIAL = 0x82f63b78;
const TABLES = makeTables();
const LITTLE_ENDIAN = endianness() === 'LE';

/** @returns the checksum of `bytes[start, end)`, unsigned. */
export function crc32c(bytes: Uint8Array, start = 0, end = bytes.length): number {
  let crc = -1;
  let at = start;
  if (LITTLE_ENDIAN && end - start >= 64) {
    const aligned = at + ((4 - ((bytes.byteOffset + at) & 3)) & 3);
    crc = byBytes(crc, bytes, at, aligned);
    const words = (end - aligned) >>> 3;
    crc = byWords(crc, new Int32Array(bytes.buffer, bytes.byteOffset + aligned, words * 2));
    at = aligned + words * 8;
  }
  return ~byBytes(crc, bytes, at, end) >>> 0;
}

function byBytes(seed: number, bytes: Uint8Array, start: number, end: number): number {
  let crc = seed;
  for (let i = start; i < end; i++) crc = TABLES[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return crc;
}

/** `words` holds an even number of little-endian words. */
function byWords(seed: number, words: Int32Array): number {
  const t = TABLES;
  let crc = seed;
  for (let i = 0; i < words.length; i += 2) {
    const a = words[i]! ^ crc;
    const b = words[i + 1]!;
    crc =
      t[1792 + (a & 0xff)]! ^
      t[1536 + ((a >>> 8) & 0xff)]! ^
      t[1280 + ((a >>> 16) & 0xff)]! ^
      t[1024 + (a >>> 24)]! ^
      t[768 + (b & 0xff)]! ^
      t[512 + ((b >>> 8) & 0xff)]! ^
      t[256 + ((b >>> 16) & 0xff)]! ^
      t[b >>> 24]!;
  }
  return crc;
}

/** Table k, at 256·k: the effect of a byte that is followed by k zero bytes. */
function makeTables(): Int32Array {
  const tables = new Int32Array(8 * 256);
  for (let n = 0; n < 256; n++) {
    let c = n;
    for (let bit = 0; bit < 8; bit++) c = (c & 1) === 1 ? (c >>> 1) ^ POLYNOMIAL : c >>> 1;
    tables[n] = c;
  }
  for (let i = 256; i < tables.length; i++) {
    const previous = tables[i - 256]!;
    tables[i] = (previous >>> 8) ^ tables[previous & 0xff]!;
  }
  return tables;
}
