import { DURABLE, type Outcome } from '../publisher.ts';
import { brokerError } from './errors.ts';
import type { Group } from './grouping.ts';
import { batchBound } from './record-batch.ts';
import type { Batch } from './produce-request.ts';
import { isLegalTopic } from './topics.ts';
import { messageOf } from '../../../errors/thrown.ts';

export function unknown(code: string, reason: string): Outcome {
  return { kind: 'unknown', code, reason };
}

/**
 * What an answer about one partition means for its messages. `errorCode` undefined: the answer did not mention the
 * partition, so nothing is known about it. Pure.
 */
export function answeredOutcome(errorCode: number | undefined, batch: Batch, maxBatchBytes: number): Outcome {
  if (errorCode === 0) return DURABLE;
  const where = `topic ${batch.topic}, partition ${batch.partition}`;
  if (errorCode === undefined)
    return unknown('partition-not-answered', `The broker did not answer for ${where}.`);
  const error = brokerError(errorCode);
  const size = error.code.endsWith('too-large') ? ` ${sizeText(batch, maxBatchBytes)}` : '';
  const reason = `${where}: ${error.code} (Kafka error ${errorCode}).${size} ${error.advice}`;
  if (error.code === 'topic-not-authorized')
    return { ...rejected(error.code, reason, batch), missingDestination: true };
  if (error.consequence === 'park') return { ...rejected(error.code, reason, batch), permanent: true };
  return unknown(error.code, reason);
}

/** The topic has no partitions to send to: it is missing, not for us, or can't exist. Each message is judged alone. */
export function topicOutcome(topic: string, errorCode: number): Outcome {
  const error = brokerError(errorCode);
  const reason = `topic ${topic}: ${error.code} (Kafka error ${errorCode}). `;
  if (error.missing === true) {
    const advice =
      errorCode === 3
        ? 'Create the topic, or correct ROUTE_TOPIC; auto.create.topics.enable is off.'
        : error.advice;
    const missing = { permanent: false, scope: 'event', missingDestination: true } as const;
    return { kind: 'rejected', code: error.code, reason: reason + advice, ...missing };
  }
  if (error.consequence !== 'park') return unknown(error.code, reason + error.advice);
  return {
    kind: 'rejected',
    code: error.code,
    reason: reason + error.advice,
    permanent: true,
    scope: 'event',
  };
}

/** The messages could not be encoded: sending them again can't help. */
export function refusedLocally(batch: Batch, error: unknown): Outcome {
  const text = messageOf(error);
  return { ...rejected('encoding-failed', `The message can't be encoded: ${text}`, batch), permanent: true };
}

/** The default of `socket.request.max.bytes`: a broker ends the connection at a longer request, without an answer. */
const MAX_BATCH_ANY_BROKER_BYTES = 100 * 1024 * 1024 - 64 * 1024;

/** What no broker would take need not be sent. */
export function refusedUnsent(group: Group): Outcome | undefined {
  if (!isLegalTopic(group.topic)) return topicOutcome(group.topic, 17);
  return group.bound > MAX_BATCH_ANY_BROKER_BYTES ? tooLargeForAnyBroker(group) : undefined;
}

function tooLargeForAnyBroker(batch: Batch): Outcome {
  const limit = `A request to a Kafka broker is at most ${MAX_BATCH_ANY_BROKER_BYTES} bytes. Make the payload smaller.`;
  const reason = `About ${batchBound(batch.messages)} bytes. ${limit}`;
  return { ...rejected('message-too-large', reason, batch), permanent: true };
}

function rejected(code: string, reason: string, batch: Batch): Extract<Outcome, { kind: 'rejected' }> {
  const scope = batch.messages.length === 1 ? 'event' : 'group';
  return { kind: 'rejected', code, reason, permanent: false, scope };
}

function sizeText(batch: Batch, maxBatchBytes: number): string {
  const bytes = batch.messages.reduce((sum, message) => sum + message.sizeBytes, 0);
  const count = batch.messages.length === 1 ? 'The message has' : `${batch.messages.length} messages have`;
  return `${count} about ${bytes} bytes; KAFKA_MAX_BATCH_BYTES is ${maxBatchBytes}, the limit of the topic is its max.message.bytes.`;
}
