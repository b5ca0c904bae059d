import type { Message } from '../../envelope/message.ts';
import type { MetadataAnswer } from './protocol.ts';
import { murmur2OfText, partitionOf } from './murmur2.ts';

/** What is known of one topic. `leaders[partition]` is a node id, or −1 while the partition has no leader. */
export interface KnownTopic {
  /** The number in use. */
  readonly partitionCount: number;
  /** The highest number seen, in use or not. */
  readonly largestCount: number;
  /** The brokers said last that they don't know it. */
  readonly missing: boolean;
  readonly leaders: readonly number[];
  /** Names of the lanes, by partition. */
  readonly lanes: readonly string[];
}

/** An answer about one topic that is not a list of partitions: the protocol's error code. */
export interface TopicProblem {
  readonly errorCode: number;
}

const LEGAL_NAME = /^[a-zA-Z0-9._-]{1,249}$/;

/** Kafka's own rule; `.` and `..` would be folders. */
export function isLegalTopic(name: string): boolean {
  return LEGAL_NAME.test(name) && name !== '.' && name !== '..';
}

/** Partition of a message: by its key as Java does it; without a key, spread by the message id, so that it is the same when sent again. */
export function partitionFor(message: Message, partitionCount: number): number {
  const { key } = message;
  return key === null
    ? (murmur2OfText(message.id) & 0x7fffffff) % partitionCount
    : partitionOf(key, partitionCount);
}

/**
 * Topics, their partitions and leaders; no I/O.
 *
 * The number of partitions that was seen first stays in use while the relay runs, even when the topic grows: a key that
 * moved to another partition could overtake its own events that still wait for the old one. A restart takes the new
 * number, because nothing waits then. A topic that the brokers don't know for a while (one that has just started knows
 * none) keeps its number for the same reason. A topic that was made anew with fewer partitions is taken as it is: its
 * lanes have other names then, so that whoever waits can tell.
 */
export class TopicTable {
  private readonly topics = new Map<string, KnownTopic>();

  get(topic: string): KnownTopic | undefined {
    return this.topics.get(topic);
  }

  /** Without those that are missing: to ask for one could create it. */
  names(): string[] {
    return [...this.topics].filter(([, known]) => !known.missing).map(([topic]) => topic);
  }

  /** Topics that have a partition led by this node. */
  ledBy(nodeId: number): string[] {
    return [...this.topics].filter(([, known]) => known.leaders.includes(nodeId)).map(([topic]) => topic);
  }

  laneOf(message: Message): string | undefined {
    const known = this.topics.get(message.destination);
    return known?.lanes[partitionFor(message, known.partitionCount)];
  }

  /** Takes over an answer. @returns topics with a problem, and topics that have just grown beyond the number in use. */
  apply(answer: MetadataAnswer): { problems: Map<string, TopicProblem>; grown: string[] } {
    const problems = new Map<string, TopicProblem>();
    const grown: string[] = [];
    for (const { topic, topicErrorCode, partitionMetadata } of answer.topicMetadata) {
      if (topicErrorCode !== 0 || partitionMetadata.length === 0) {
        problems.set(topic, { errorCode: topicErrorCode === 0 ? 5 : topicErrorCode });
        if (topicErrorCode === 3) this.lose(topic);
        continue;
      }
      const before = this.topics.get(topic);
      const count = Math.min(partitionMetadata.length, before?.partitionCount ?? Infinity);
      const largestCount = Math.max(partitionMetadata.length, before?.largestCount ?? 0);
      if (before !== undefined && largestCount > before.largestCount) grown.push(topic);
      const leaders = Array.from({ length: count }, () => -1);
      for (const { partitionId, leader } of partitionMetadata) {
        if (partitionId < count) leaders[partitionId] = leader;
      }
      const lanes = before?.partitionCount === count ? before.lanes : laneNames(topic, count);
      this.topics.set(topic, { partitionCount: count, largestCount, missing: false, leaders, lanes });
    }
    return { problems, grown };
  }

  private lose(topic: string): void {
    const known = this.topics.get(topic);
    if (known !== undefined)
      this.topics.set(topic, { ...known, missing: true, leaders: known.leaders.map(() => -1) });
  }
}

function laneNames(topic: string, count: number): string[] {
  return Array.from({ length: count }, (_, partition) => `${topic}:${count}:${partition}`);
}
