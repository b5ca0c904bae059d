import { promisify } from 'node:util';
import { gzip } from 'node:zlib';

import type { Message } from '../../envelope/message.ts';
import {
  BATCH_HEADER_BYTES,
  batchBound,
  CODEC,
  timesOf,
  writeBatch,
  writeBatchHeader,
  writeRecords,
} from './record-batch.ts';
import type { Stamp } from './sequences.ts';

/** Messages of one partition that travel as one record batch: durable together or not at all. */
export interface Batch {
  readonly topic: string;
  readonly partition: number;
  readonly messages: readonly Message[];
  /** Producer id, epoch and sequence; without, the broker compares the batch with no other. */
  readonly stamp?: Stamp | undefined;
}

const ACKS_ALL = -1;
const compress = promisify(gzip);

/** Compressed records of a batch, in the order of the batches. */
export type CompressedRecords = readonly Buffer[];

export async function gzipRecords(batches: readonly Batch[]): Promise<CompressedRecords> {
  return await Promise.all(
    batches.map(async ({ messages }) => {
      const scratch = Buffer.allocUnsafe(batchBound(messages));
      const end = writeRecords(scratch, 0, messages, timesOf(messages).first);
      return await compress(scratch.subarray(0, end));
    }),
  );
}

/** No request with these batches is longer, bytes. */
export function requestBound(batches: readonly Batch[], compressed?: CompressedRecords): number {
  let bound = 12;
  for (let i = 0; i < batches.length; i++) {
    const { topic, messages } = batches[i]!;
    const records = compressed?.[i];
    bound += 24 + 3 * topic.length;
    bound += records === undefined ? batchBound(messages) : BATCH_HEADER_BYTES + records.length;
  }
  return bound;
}

/**
 * Writes the body of a Produce request (versions 3 to 8 are alike) at the start of `buffer`.
 * Batches of one topic must stand side by side, and no partition may occur twice.
 * @param timeoutMs how long the broker may wait for its in-sync replicas.
 * @returns the length of the body, bytes.
 */
export function writeProduceRequest(
  buffer: Buffer,
  batches: readonly Batch[],
  timeoutMs: number,
  compressed?: CompressedRecords,
): number {
  let at = buffer.writeInt16BE(-1, 0); // no transactional id
  at = buffer.writeInt16BE(ACKS_ALL, at);
  at = buffer.writeInt32BE(timeoutMs, at);
  const topicCountAt = at;
  at += 4;
  let topics = 0;
  let partitions = 0;
  let partitionCountAt = 0;
  for (let i = 0; i < batches.length; i++) {
    const batch = batches[i]!;
    if (i === 0 || batch.topic !== batches[i - 1]!.topic) {
      topics++;
      partitions = 0;
      at = writeString(buffer, at, batch.topic);
      partitionCountAt = at;
      at += 4;
    }
    buffer.writeInt32BE(++partitions, partitionCountAt);
    at = writePartition(buffer, at, batch, compressed?.[i]);
  }
  buffer.writeInt32BE(topics, topicCountAt);
  return at;
}

function writePartition(buffer: Buffer, at: number, batch: Batch, records: Buffer | undefined): number {
  buffer.writeInt32BE(batch.partition, at);
  const start = at + 8;
  let end: number;
  if (records === undefined) {
    end = writeBatch(buffer, start, batch.messages, batch.stamp);
  } else {
    end = start + BATCH_HEADER_BYTES + records.length;
    buffer.set(records, start + BATCH_HEADER_BYTES);
    const times = timesOf(batch.messages);
    writeBatchHeader(
      buffer,
      start,
      { end, count: batch.messages.length, codec: CODEC.gzip, ...times },
      batch.stamp,
    );
  }
  buffer.writeInt32BE(end - start, at + 4);
  return end;
}

function writeString(buffer: Buffer, at: number, text: string): number {
  const bytes = buffer.write(text, at + 2, 'utf8');
  buffer.writeInt16BE(bytes, at);
  return at + 2 + bytes;
}
