import type { KafkaConfig } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';
import type { Message } from '../../envelope/message.ts';
import { mayWrite } from '../publisher.ts';
import type { OnOutcome, Outcome, Publisher, PublisherEvents } from '../publisher.ts';
import { Cluster } from './cluster.ts';
import { Dialer } from './dialer.ts';
import { brokerError } from './errors.ts';
import { Fence } from './fence.ts';
import type { MetadataAnswer } from './protocol.ts';
import { groupByPartition, type Group } from './grouping.ts';
import { refusedUnsent, unknown } from './outcome.ts';
import { RoomGate } from './room-gate.ts';
import { Unanswered } from '../unanswered.ts';
import { Sender } from './sender.ts';
import { isLegalTopic, TopicTable } from './topics.ts';
import { type Judged, judgeAge, judgeProblems } from './waiting-groups.ts';

export interface KafkaPublisherOptions {
  /** Messages that may be outstanding. */
  readonly maxEvents?: number;
  /** Age of metadata at which it is asked for again, milliseconds. */
  readonly metadataMaxAgeMs?: number;
}

const MAX_EVENTS = 10_000;
const MAX_PUBLISH_BYTES = 2 * 1024 * 1024;
const METADATA_MAX_AGE_MS = 300_000;
/** How often groups without a leader, and topics that are not there, are asked for again. */
const NUDGE_MS = 100;

/**
 * Forwards messages to Kafka, acks=all: durable means that all in-sync replicas have it.
 *
 * Lane: one partition. Its messages of one `publish` call are one record batch, so they are durable together or not at
 * all. The lane of a topic that nobody has asked for yet is not known.
 */
export function createKafkaPublisher(
  config: KafkaConfig,
  events: PublisherEvents,
  options: KafkaPublisherOptions = {},
): Publisher {
  return new KafkaPublisher(config, events, options);
}

type State = 'new' | 'connected' | 'reconnecting' | 'halted' | 'closed';

class KafkaPublisher implements Publisher {
  readonly laneLimit: { readonly events: number; readonly bytes: number };
  readonly maxPublishBytes = MAX_PUBLISH_BYTES;
  private readonly config: KafkaConfig;
  private readonly events: PublisherEvents;
  private readonly options: Required<KafkaPublisherOptions>;
  private readonly cluster: Cluster;
  private readonly dialer = new Dialer(async () => await this.dial());
  /** What `onConnection` said last. */
  private told: boolean | undefined;
  private readonly topics = new TopicTable();
  private readonly senders = new Map<number, Sender>();
  /** Groups whose topic or leader is not known at the moment. */
  private unrouted: Group[] = [];
  private state: State = 'new';
  private readonly unanswered = new Unanswered();
  private readonly gate: RoomGate;
  private readonly fence: Fence;
  private nudgeTimer: NodeJS.Timeout | undefined;
  private metadataSince = 0;
  private readonly ended = new AbortController();
  private closing: Promise<void> | undefined;

  constructor(config: KafkaConfig, events: PublisherEvents, options: KafkaPublisherOptions) {
    this.config = config;
    this.events = events;
    this.options = { maxEvents: MAX_EVENTS, metadataMaxAgeMs: METADATA_MAX_AGE_MS, ...options };
    this.laneLimit = { events: this.options.maxEvents, bytes: config.maxBatchBytes };
    this.gate = new RoomGate(() => this.room() > 0, events.onRoom);
    this.cluster = new Cluster(config, {
      onLink: () => this.route(),
      onLinkLost: (nodeId, reason, lastOne) => this.linkLost(nodeId, reason, lastOne),
      onMetadata: (answer) => this.learn(answer),
      onFatal: (error) => this.halt(error),
    });
    this.fence = new Fence({
      link: (nodeId) => (nodeId === undefined ? this.cluster.anyLink() : this.cluster.linkTo(nodeId)),
      mayAsk: () => events.mayStart?.() !== false,
      onReady: () => this.route(),
      onFenced: (errorCode) => this.haltAt(errorCode, 'another producer epoch has begun'),
      onNotice: (message) => events.onNotice?.(message),
    });
  }

  async connect(signal: AbortSignal): Promise<void> {
    if (this.closing !== undefined) throw new Error('the Kafka publisher is closed');
    signal.throwIfAborted();
    if (this.state !== 'connected') await this.dialer.once(signal);
  }

  lead(name: string | undefined): void {
    if (name === undefined) this.fence.end();
    else this.fence.begin(`outbox-relay.${name}`);
  }

  laneOf(message: Message): string | undefined {
    const lane = this.topics.laneOf(message);
    if (lane === undefined && isLegalTopic(message.destination)) this.cluster.ask([message.destination]);
    return lane;
  }

  layoutOf(destination: string): number | undefined {
    return this.topics.get(destination)?.partitionCount;
  }

  room(): number {
    if (this.state !== 'connected' || this.gate.held || this.closing !== undefined) return 0;
    return Math.max(0, this.options.maxEvents - this.unanswered.count);
  }

  publish(messages: readonly Message[], onOutcome: OnOutcome): void {
    this.unanswered.add(messages.length);
    const groups = groupByPartition(messages, this.topics, onOutcome);
    if (this.state !== 'connected' || (this.closing !== undefined && this.ended.signal.aborted)) {
      for (const group of groups)
        this.settle(group, unknown('not-connected', 'No Kafka broker is connected.'));
      return;
    }
    this.unrouted.push(...groups);
    if (performance.now() - this.metadataSince > this.options.metadataMaxAgeMs)
      this.refresh(this.topics.names());
    this.route();
    this.gate.look();
  }

  async close(deadlineMs: number): Promise<void> {
    this.closing ??= this.drainAndClose(deadlineMs);
    await this.closing;
  }

  /** Leads every group to its broker, as far as it is known and connected; the rest waits for metadata or a link. */
  private route(): void {
    const groups = this.unrouted;
    this.unrouted = [];
    const touched = new Set<Sender>();
    const missing = new Set<string>();
    for (const group of groups) {
      const sender = this.senderFor(group, missing);
      if (sender === undefined) continue;
      sender.add(group);
      touched.add(sender);
    }
    this.cluster.ask(missing);
    for (const sender of touched) sender.pump();
    if (this.unrouted.length > 0) this.nudgeLater();
  }

  private senderFor(group: Group, missing: Set<string>): Sender | undefined {
    const { topic } = group;
    const refusal = refusedUnsent(group);
    if (refusal !== undefined) {
      this.settle(group, refusal);
      return undefined;
    }
    const known = this.topics.get(topic);
    if (known === undefined) {
      missing.add(topic);
      this.unrouted.push(group);
      return undefined;
    }
    if (group.partitionCount !== known.partitionCount) {
      this.unrouted.push(...groupByPartition(group.messages, this.topics, group.onOutcome, group.since));
      queueMicrotask(() => this.route());
      return undefined;
    }
    const leader = known.leaders[group.partition] ?? -1;
    if (leader < 0) missing.add(topic);
    const ready = leader >= 0 && this.cluster.linkTo(leader) !== undefined;
    if (!ready || this.fence.holdsBack(group.topicPartition)) {
      this.unrouted.push(group);
      return undefined;
    }
    return this.sender(leader);
  }

  private sender(nodeId: number): Sender {
    let sender = this.senders.get(nodeId);
    if (sender === undefined) {
      sender = new Sender(this.config, {
        link: () => this.cluster.linkTo(nodeId),
        mayWrite: () => mayWrite(this.events),
        stamp: (group) => this.fence.stamp(group),
        settle: (group, outcome, errorCode) => this.settleAnswered(group, outcome, errorCode),
        onBusy: (busy) => this.gate.busy(nodeId, busy),
      });
      this.senders.set(nodeId, sender);
    }
    return sender;
  }

  private settleAnswered(group: Group, outcome: Outcome, errorCode: number | undefined): void {
    if (errorCode !== undefined && errorCode !== 0 && brokerError(errorCode).staleMetadata === true) {
      this.refresh([group.topic]);
    }
    this.settle(group, outcome);
    if (errorCode === undefined || this.fence.concerns(group, errorCode)) return;
    if (outcome.kind === 'unknown') this.haltAt(errorCode, outcome.reason);
  }

  /** Sending again can't help against an error that needs a person, nor when somebody else leads. */
  private haltAt(errorCode: number, reason: string): void {
    const { consequence, code, advice } = brokerError(errorCode);
    if (consequence === 'stop' || code === 'fenced')
      this.halt(new RelayError(consequence, code, reason, { advice }));
  }

  private settle(group: Group, outcome: Outcome): void {
    const { messages, onOutcome } = group;
    this.unanswered.answered(messages.length);
    this.fence.settled(group, outcome);
    for (const message of messages) onOutcome(message, outcome);
    this.gate.tellSoon();
  }

  private refresh(topics: Iterable<string>): void {
    this.metadataSince = performance.now();
    this.cluster.ask(topics);
  }

  private learn(answer: MetadataAnswer): void {
    const { problems, grown } = this.topics.apply(answer);
    for (const topic of grown) {
      const text = `topic ${topic} has more partitions now; they are used after a restart, so that no key changes its order`;
      this.events.onNotice?.(text);
    }
    this.answerJudged(judgeProblems(this.unrouted, problems, this.topics));
    this.route();
  }

  private answerJudged({ waiting, answered }: Judged): void {
    this.unrouted = waiting;
    for (const { group, outcome } of answered) this.settle(group, outcome);
    // Afterwards: it answers for all that wait, and half of them were out of its sight.
    for (const { errorCode, outcome } of answered) {
      if (errorCode !== undefined && outcome.kind === 'unknown') this.haltAt(errorCode, outcome.reason);
    }
  }

  private nudgeLater(): void {
    this.nudgeTimer ??= setTimeout(() => {
      this.nudgeTimer = undefined;
      const sinceMs = performance.now() - this.config.requestTimeoutMs;
      this.answerJudged(judgeAge(this.unrouted, sinceMs, this.cluster.unreachable()));
      this.refresh(new Set(this.unrouted.map((group) => group.topic)));
      this.route();
    }, NUDGE_MS);
  }

  private linkLost(nodeId: number, reason: Error, lastOne: boolean): void {
    const sender = this.senders.get(nodeId);
    sender?.abandon('connection-lost', reason.message);
    if (sender !== undefined) this.unrouted.push(...sender.withdraw());
    if (this.state !== 'connected') return;
    if (lastOne) {
      this.offline(reason);
      return;
    }
    this.refresh(this.topics.ledBy(nodeId));
    this.route();
  }

  private async dial(): Promise<void> {
    await this.cluster.connect();
    if (this.ended.signal.aborted) throw new Error('the Kafka publisher is closed');
    this.state = 'connected';
    this.refresh(this.topics.names());
    this.tell(true, 'connected');
    this.gate.tell();
  }

  /** Brokers end idle connections; that is not worth a word when the first attempt brings it back. */
  private offline(reason: Error): void {
    this.state = 'reconnecting';
    if (this.unanswered.count > 0) this.tell(false, reason.message);
    this.failAll('connection-lost', reason.message);
    this.gate.look();
    if (this.closing !== undefined) return;
    const away = (): boolean => this.state === 'reconnecting';
    void this.dialer.untilConnected(this.ended.signal, away, (error) => {
      this.tell(false, reason.message);
      if (error.consequence === 'stop') this.halt(error);
      return error.consequence !== 'stop';
    });
  }

  private tell(connected: boolean, reason: string): void {
    if (this.told === connected) return;
    this.told = connected;
    this.events.onConnection(connected, reason);
  }

  /** Needs a person, or another relay leads. `connect` may be called again, and reads the secrets again. */
  private halt(error: RelayError): void {
    if (this.state === 'halted' || this.ended.signal.aborted) return;
    this.state = 'halted';
    this.gate.look();
    this.tell(false, error.message);
    this.fence.end();
    this.failAll(error.code, error.message);
    this.cluster.disconnect(error);
    this.events.onFatal(error);
  }

  private failAll(code: string, reason: string): void {
    for (const sender of this.senders.values()) {
      sender.abandon(code, reason);
      this.unrouted.push(...sender.withdraw());
    }
    const groups = this.unrouted;
    this.unrouted = [];
    for (const group of groups) this.settle(group, unknown(code, reason));
  }

  private async drainAndClose(deadlineMs: number): Promise<void> {
    await this.unanswered.none(deadlineMs);
    this.state = 'closed';
    this.fence.end();
    this.ended.abort();
    this.cluster.close();
    this.failAll('closed', 'The relay stopped before the broker answered.');
    this.gate.close();
    clearTimeout(this.nudgeTimer);
  }
}
