/**
 * The key hash of Kafka's Java client, so that a consumer which joins topics by partition finds our records where its
 * own would be. Source: `Utils.murmur2` of org.apache.kafka.common.utils.
 */
const SEED = 0x9747b28c;
const M = 0x5bd1e995;

/** Hash of the bytes, a signed 32-bit number. */
export function murmur2(data: Uint8Array): number {
  const length = data.length;
  const words = length & ~3;
  let h = SEED ^ length;
  for (let i = 0; i < words; i += 4) {
    h = mixWord(h, data[i]! | (data[i + 1]! << 8) | (data[i + 2]! << 16) | (data[i + 3]! << 24));
  }
  let tail = 0;
  for (let i = length - 1; i >= words; i--) tail = (tail << 8) | data[i]!;
  return finish(length === words ? h : Math.imul(h ^ tail, M));
}

/** Hash of the UTF-8 form of a string. ASCII, which nearly every key is, is hashed without making bytes of it. */
export function murmur2OfText(text: string): number {
  const length = text.length;
  const words = length & ~3;
  let h = SEED ^ length;
  let seen = 0;
  for (let i = 0; i < words; i += 4) {
    const a = text.charCodeAt(i);
    const b = text.charCodeAt(i + 1);
    const c = text.charCodeAt(i + 2);
    const d = text.charCodeAt(i + 3);
    seen |= a | b | c | d;
    h = mixWord(h, a | (b << 8) | (c << 16) | (d << 24));
  }
  let tail = 0;
  for (let i = length - 1; i >= words; i--) {
    const c = text.charCodeAt(i);
    seen |= c;
    tail = (tail << 8) | c;
  }
  if (seen > 0x7f) return murmur2(Buffer.from(text));
  return finish(length === words ? h : Math.imul(h ^ tail, M));
}

/** The partition that Java's default partitioner chooses for this key. */
export function partitionOf(key: string, partitionCount: number): number {
  return (murmur2OfText(key) & 0x7fffffff) % partitionCount;
}

function mixWord(h: number, word: number): number {
  let k = Math.imul(word, M);
  k ^= k >>> 24;
  return Math.imul(h, M) ^ Math.imul(k, M);
}

function finish(hash: number): number {
  let h = hash ^ (hash >>> 13);
  h = Math.imul(h, M);
  return h ^ (h >>> 15);
}
