import type { ProducerEpoch } from './sequences.ts';

/**
 * FindCoordinator 1 and InitProducerId 3 (Kafka 2.5), bodies without the request header.
 * Format: https://kafka.apache.org/protocol#The_Messages_InitProducerId. With InitProducerId 1 or 2 one can't
 * name the epoch that is to be replaced: a process that leads no longer could fence its successor with it.
 */
export const FIND_COORDINATOR = { apiKey: 10, version: 1, name: 'FindCoordinator' } as const;
export const INIT_PRODUCER_ID = { apiKey: 22, version: 3, name: 'InitProducerId' } as const;

const TRANSACTION_COORDINATOR = 1;
/** No transaction is ever begun; it also limits how long the coordinator waits for its own replicas. */
const TRANSACTION_TIMEOUT_MS = 10_000;
export const NO_PRODUCER: ProducerEpoch = { producerId: -1n, epoch: -1 };

export interface CoordinatorAnswer {
  readonly errorCode: number;
  readonly nodeId: number;
}

export interface ProducerEpochAnswer extends ProducerEpoch {
  readonly errorCode: number;
}

export function encodeFindCoordinator(transactionalId: string): Buffer {
  const id = Buffer.from(transactionalId);
  const buffer = Buffer.alloc(2 + id.length + 1);
  buffer.writeInt16BE(id.length, 0);
  id.copy(buffer, 2);
  buffer[2 + id.length] = TRANSACTION_COORDINATOR;
  return buffer;
}

/** Throttle time 4, error code 2, error message, node id 4, host, port. */
export function decodeFindCoordinator(payload: Buffer): CoordinatorAnswer {
  const messageBytes = Math.max(0, payload.readInt16BE(6));
  return { errorCode: payload.readInt16BE(4), nodeId: payload.readInt32BE(8 + messageBytes) };
}

/** `current`: what this process holds; refused when somebody else has got a higher one since. Without: whatever is there. */
export function encodeInitProducerId(transactionalId: string, current?: ProducerEpoch): Buffer {
  const id = Buffer.from(transactionalId);
  const { producerId, epoch } = current ?? NO_PRODUCER;
  const numbers = Buffer.alloc(4 + 8 + 2 + 1);
  numbers.writeInt32BE(TRANSACTION_TIMEOUT_MS, 0);
  numbers.writeBigInt64BE(producerId, 4);
  numbers.writeInt16BE(epoch, 12);
  // In front the end of the flexible request header, at the end that of the body: no tagged fields.
  return Buffer.concat([Buffer.from([0]), unsignedVarint(id.length + 1), id, numbers]);
}

/** End of the flexible response header 1, throttle time 4, error code 2, producer id 8, epoch 2. */
export function decodeInitProducerId(payload: Buffer): ProducerEpochAnswer {
  return {
    errorCode: payload.readInt16BE(5),
    producerId: payload.readBigInt64BE(7),
    epoch: payload.readInt16BE(15),
  };
}

/**
 * What an answer to either request means. `again`: the coordinator moves, loads, or is away. `fenced`: somebody else has a
 * higher epoch. `refused`: it will be the same the next time. Pure.
 */
export function judgeEpochAnswer(
  errorCode: number,
  current: ProducerEpoch | undefined,
): 'given' | 'again' | 'fenced' | 'refused' {
  if (errorCode === 0) return 'given';
  // INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED
  if (current !== undefined && [47, 49, 90].includes(errorCode)) return 'fenced';
  return REFUSALS.has(errorCode) ? 'refused' : 'again';
}

/** CLUSTER_AUTHORIZATION_FAILED, UNSUPPORTED_VERSION, INVALID_REQUEST, INVALID_TXN_STATE, INVALID_TRANSACTION_TIMEOUT, TRANSACTIONAL_ID_AUTHORIZATION_FAILED, SECURITY_DISABLED */
const REFUSALS = new Set([31, 35, 42, 48, 50, 53, 54]);

function unsignedVarint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  return Buffer.from([...bytes, rest]);
}
