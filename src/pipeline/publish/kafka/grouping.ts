import type { Message } from '../../envelope/message.ts';
import type { OnOutcome } from '../publisher.ts';
import type { Batch } from './produce-request.ts';
import { batchBound } from './record-batch.ts';
import type { Stamp } from './sequences.ts';
import { partitionFor, type TopicTable } from './topics.ts';

/** Messages of one partition on their way, and whom to tell. */
export interface Group extends Batch {
  /** `topic:partition`. */
  readonly topicPartition: string;
  /** The number of partitions it was dealt by, 0 when the topic was not known: by another it must be dealt again. */
  readonly partitionCount: number;
  readonly onOutcome: OnOutcome;
  /** `performance.now()` when it was handed over. */
  readonly since: number;
  /** The batch is no longer than this, bytes. */
  readonly bound: number;
  /** How often the topic was asked for in vain. */
  asked: number;
  /** Set when it is encoded. */
  stamp: Stamp | undefined;
}

/** One group a partition, each in the order of the messages; partition −1 holds all of a topic that is not known. */
export function groupByPartition(
  messages: readonly Message[],
  topics: TopicTable,
  onOutcome: OnOutcome,
  since = performance.now(),
): Group[] {
  const groups: Group[] = [];
  for (const [topic, parts] of deal(messages, topics)) {
    const partitionCount = topics.get(topic)?.partitionCount ?? 0;
    for (const [index, part] of parts.entries()) {
      // An array with holes: partitions without a message.
      if (part === undefined) continue;
      const partition = index - 1;
      groups.push({
        topic,
        partition,
        topicPartition: `${topic}:${partition}`,
        partitionCount,
        messages: part,
        onOutcome,
        since,
        bound: batchBound(part),
        asked: 0,
        stamp: undefined,
      });
    }
  }
  return groups;
}

/** Topic → messages by partition + 1. */
function deal(messages: readonly Message[], topics: TopicTable): Map<string, (Message[] | undefined)[]> {
  const byTopic = new Map<string, (Message[] | undefined)[]>();
  let topic: string | undefined;
  let parts: (Message[] | undefined)[] = [];
  let count = 0;
  for (const message of messages) {
    if (message.destination !== topic) {
      topic = message.destination;
      count = topics.get(topic)?.partitionCount ?? 0;
      parts = byTopic.get(topic) ?? [];
      byTopic.set(topic, parts);
    }
    const index = count === 0 ? 0 : partitionFor(message, count) + 1;
    (parts[index] ??= []).push(message);
  }
  return byTopic;
}
