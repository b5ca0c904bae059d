import type { Outcome } from '../publisher.ts';
import type { Group } from './grouping.ts';

/** What the cluster gives to one leader after the other: the same id, each time with a higher epoch. */
export interface ProducerEpoch {
  readonly producerId: bigint;
  readonly epoch: number;
}

/** What a batch carries of its producer. `sequence`: number of its first record in this epoch and partition. */
export interface Stamp extends ProducerEpoch {
  readonly sequence: number;
}

/** Sequences are 32-bit numbers; at the end of them a new epoch begins at 0 again. */
const MAX_SEQUENCE = 0x7fffffff;

/**
 * Numbers the batches of every partition in one epoch; no I/O.
 *
 * A broker takes a batch with the numbers of an earlier one for the same batch, drops it, and answers that all is well.
 * So a number that may have been written is never used for anything else: after an outcome that is not known, the
 * partition is in doubt until a new epoch begins. It gets no numbers meanwhile, which is always safe: such a batch is
 * not compared with others.
 */
export class Sequences {
  private producer: ProducerEpoch | undefined;
  private readonly next = new Map<string, number>();
  private readonly doubtful = new Set<string>();
  /** The one batch of a partition that is on its way with numbers, of this epoch or an earlier one. */
  private readonly open = new Map<string, Group>();

  /** Without a producer no batch gets numbers. */
  begin(producer: ProducerEpoch | undefined): void {
    this.producer = producer;
    this.next.clear();
    this.doubtful.clear();
  }

  isDoubtful(topicPartition: string): boolean {
    return this.doubtful.has(topicPartition);
  }

  /** The same for the same group until it is answered. */
  stamp(group: Group): Stamp | undefined {
    const { topicPartition, messages } = group;
    const { producer } = this;
    const other = this.open.get(topicPartition) ?? group;
    if (producer === undefined || other !== group || this.doubtful.has(topicPartition)) return undefined;
    const sequence = this.next.get(topicPartition) ?? 0;
    if (sequence + messages.length > MAX_SEQUENCE) {
      this.doubtful.add(topicPartition);
      return undefined;
    }
    this.open.set(topicPartition, group);
    return { ...producer, sequence };
  }

  /** A batch that the broker refused has used no numbers. */
  settled(group: Group, kind: Outcome['kind']): void {
    const { topicPartition, stamp, messages } = group;
    if (this.open.get(topicPartition) === group) this.open.delete(topicPartition);
    const { producer } = this;
    if (stamp === undefined || stamp.producerId !== producer?.producerId || stamp.epoch !== producer.epoch)
      return;
    if (kind === 'durable') this.next.set(topicPartition, stamp.sequence + messages.length);
    else if (kind === 'unknown') this.doubtful.add(topicPartition);
  }
}
