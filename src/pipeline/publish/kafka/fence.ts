import { Backoff } from '../../../lifecycle/backoff.ts';
import type { Outcome } from '../publisher.ts';
import type { Group } from './grouping.ts';
import type { BrokerLink } from './link.ts';
import { judgeEpochAnswer, NO_PRODUCER, type ProducerEpochAnswer } from './producer-epoch.ts';
import { type ProducerEpoch, Sequences, type Stamp } from './sequences.ts';
import { pause } from '../../../lifecycle/wait.ts';

/** What the fence uses of a link. */
export type FenceLink = Pick<BrokerLink, 'givesProducerEpochs' | 'findCoordinator' | 'initProducerId'>;

export interface FenceEvents {
  /** The link to this node, or to any without a number; undefined while there is none. */
  readonly link: (nodeId?: number) => FenceLink | undefined;
  /** Asked right before an epoch is asked for: it would end the epoch of whoever leads now. */
  readonly mayAsk: () => boolean;
  /** What was held back may go. */
  readonly onReady: () => void;
  /** Somebody else leads. */
  readonly onFenced: (errorCode: number) => void;
  readonly onNotice: (message: string) => void;
}

/** Messages wait so long for an epoch, then they go without. */
const HOLD_MS = 1_000;
/** So much later it is worth a word: a cluster that is asked for the first time makes a topic for its answer. */
const NOTICE_MS = 2_000;
/** An epoch is a 16-bit number: in an outage with many retries it must not be used up. */
const MIN_INTERVAL_MS = 500;
/** The cluster forgets who holds an epoch after `transactional.id.expiration.ms`, 7 days by default. */
const MAX_AGE_MS = 24 * 3_600_000;
const DEADLINE_MS = 15_000;
const UNSUPPORTED_VERSION = 35;
/** Of a Produce answer: CLUSTER_AUTHORIZATION_FAILED, UNSUPPORTED_VERSION, INVALID_REQUEST, UNSUPPORTED_FOR_MESSAGE_FORMAT, TRANSACTIONAL_ID_AUTHORIZATION_FAILED */
const ABOUT_PRODUCER = new Set([31, UNSUPPORTED_VERSION, 42, 43, 53]);

const WITHOUT = 'a relay that was stopped while it led is not refused by Kafka when it wakes up';
const LATE = `${WITHOUT}: the cluster does not give a producer epoch at the moment; it is asked again`;

/**
 * Makes the brokers refuse what an earlier leader sends late. Every leader gets the same producer id with a higher epoch
 * (`InitProducerId` with a transactional id); on a partition that has seen the higher one, a batch with a lower one is
 * refused. No transaction is ever begun: consumers see records as ever.
 *
 * Never in the way of delivering: where the cluster refuses, can't, or does not answer, batches go without an epoch.
 */
export class Fence {
  private readonly events: FenceEvents;
  private readonly sequences = new Sequences();
  private transactionalId: string | undefined;
  private producer: ProducerEpoch | undefined;
  private givenAtMs = -Infinity;
  private asking = false;
  private holdUntilMs = 0;
  private term = new AbortController();
  private noticed: string | undefined;

  constructor(events: FenceEvents) {
    this.events = events;
  }

  /** A new term of leading: whatever epoch this process had may be outdated. */
  begin(transactionalId: string): void {
    this.end();
    this.term = new AbortController();
    this.transactionalId = transactionalId;
    this.ask();
  }

  /** Batches go without an epoch. */
  end(): void {
    this.term.abort();
    this.transactionalId = undefined;
    this.producer = undefined;
    this.sequences.begin(undefined);
    this.asking = false;
  }

  /** Whether the partition has to wait a moment for an epoch. */
  holdsBack(topicPartition: string): boolean {
    if (this.transactionalId === undefined) return false;
    if (this.producer !== undefined && !this.sequences.isDoubtful(topicPartition)) return false;
    this.ask();
    // Without the lease nobody asks, and whoever writes is told so.
    return performance.now() < this.holdUntilMs && this.events.mayAsk();
  }

  stamp(group: Group): Stamp | undefined {
    if (this.producer !== undefined && performance.now() - this.givenAtMs > MAX_AGE_MS) this.ask();
    return this.sequences.stamp(group);
  }

  /** Every group comes here in the end, sent or not. */
  settled(group: Group, outcome: Outcome): void {
    this.sequences.settled(group, outcome.kind);
  }

  /** Whether the answer was about the producer id: the next attempt goes without, and nobody need be called. */
  concerns(group: Group, errorCode: number): boolean {
    if (group.stamp === undefined || !ABOUT_PRODUCER.has(errorCode)) return false;
    if (this.transactionalId !== undefined) this.refuse(errorCode);
    return true;
  }

  private ask(): void {
    const { transactionalId } = this;
    if (this.asking || transactionalId === undefined) return;
    this.asking = true;
    this.holdUntilMs = Infinity;
    void this.askUntilAnswered(transactionalId, this.term.signal);
  }

  private async askUntilAnswered(transactionalId: string, term: AbortSignal): Promise<void> {
    const { producer } = this;
    const backoff = new Backoff({ firstMs: 20, maxMs: 1_000 });
    const pauseMs = this.givenAtMs + MIN_INTERVAL_MS - performance.now();
    if (pauseMs > 0) await pause(pauseMs, term);
    while (!term.aborted) {
      const answer = await this.attempt(transactionalId, producer, term).catch(() => undefined);
      if (term.aborted) return;
      if (answer !== undefined && this.conclude(answer, producer)) return;
      if (performance.now() > this.holdUntilMs + NOTICE_MS) this.notice(LATE);
      await backoff.wait(term);
    }
  }

  /** Undefined: there is nobody to ask. Not remembered who the coordinator is: it moves, and epochs are rarely asked for. */
  private async attempt(
    transactionalId: string,
    current: ProducerEpoch | undefined,
    term: AbortSignal,
  ): Promise<ProducerEpochAnswer | undefined> {
    const any = this.events.link();
    if (any === undefined) return undefined;
    this.holdUntilMs = Math.min(this.holdUntilMs, performance.now() + HOLD_MS);
    if (!any.givesProducerEpochs) return { ...NO_PRODUCER, errorCode: UNSUPPORTED_VERSION };
    const { errorCode, nodeId } = await any.findCoordinator(transactionalId, DEADLINE_MS);
    if (errorCode !== 0) return { ...NO_PRODUCER, errorCode };
    const link = this.events.link(nodeId);
    if (link === undefined || term.aborted || !this.events.mayAsk()) return undefined;
    return await link.initProducerId(transactionalId, current, DEADLINE_MS);
  }

  /** @returns whether there is nothing more to ask. */
  private conclude({ errorCode, producerId, epoch }: ProducerEpochAnswer, asked?: ProducerEpoch): boolean {
    const verdict = judgeEpochAnswer(errorCode, asked);
    if (verdict === 'given') this.given({ producerId, epoch });
    if (verdict === 'refused') this.refuse(errorCode);
    if (verdict === 'fenced') {
      this.end();
      this.events.onFenced(errorCode);
    }
    return verdict !== 'again';
  }

  private given(producer: ProducerEpoch): void {
    this.producer = producer;
    this.givenAtMs = performance.now();
    this.asking = false;
    this.sequences.begin(producer);
    this.events.onReady();
  }

  private refuse(errorCode: number): void {
    this.notice(
      errorCode === UNSUPPORTED_VERSION
        ? `${WITHOUT}: the brokers have no producer epochs of Kafka 2.5 or later`
        : `${WITHOUT} (Kafka error ${errorCode}): grant WRITE and DESCRIBE on the transactional id ${this.transactionalId}, and before Kafka 3.0 IDEMPOTENT_WRITE on the cluster`,
    );
    this.end();
    this.events.onReady();
  }

  private notice(text: string): void {
    if (this.noticed !== text) this.events.onNotice(text);
    this.noticed = text;
  }
}
