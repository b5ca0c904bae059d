import type { KafkaConfig } from '../../../config/config.ts';
import { LEASE_ENDED, type Outcome } from '../publisher.ts';
import type { Group } from './grouping.ts';
import type { BrokerLink } from './link.ts';
import { answeredOutcome, refusedLocally, unknown } from './outcome.ts';
import { type CompressedRecords, gzipRecords, requestBound, writeProduceRequest } from './produce-request.ts';
import type { ProduceAnswer } from './protocol.ts';
import type { Stamp } from './sequences.ts';
import { toError } from '../../../errors/thrown.ts';

/** What the sender uses of a link. */
export type ProduceLink = Pick<BrokerLink, 'needsAuthentication' | 'authenticate' | 'produce' | 'destroy'>;

export interface SenderEvents {
  /** The link to this broker, or undefined while there is none. */
  readonly link: () => ProduceLink | undefined;
  /** Asked right before a request is written. */
  readonly mayWrite: () => boolean;
  /** Numbers the batch; it may be encoded several times before it is sent. */
  readonly stamp: (group: Group) => Stamp | undefined;
  /** Called exactly once a group that was added. `errorCode`: of the broker's answer, if there was one. */
  readonly settle: (group: Group, outcome: Outcome, errorCode?: number) => void;
  /** A request has gone out (`true`) or come to its end (`false`). */
  readonly onBusy: (busy: boolean) => void;
}

/** The broker may use all of the configured time; only then is its silence a fault. */
const ANSWER_MARGIN_MS = 2000;
/** A request is not filled further beyond this; one larger group still goes, alone. */
const MAX_REQUEST_BYTES = 8 * 1024 * 1024;

interface Flight {
  groups: readonly Group[];
  over: boolean;
}

/**
 * Sends to one broker, one request at a time; what comes meanwhile grows into the next one. A partition occurs at most
 * once in a request, and not again before its answer.
 *
 * After a request that failed as a whole, its partitions are **suspects**: each goes alone until it succeeds once, so
 * that something which makes the broker end the connection can't take its neighbours with it for ever.
 */
export class Sender {
  private readonly config: KafkaConfig;
  private readonly events: SenderEvents;
  private queue: Group[] = [];
  private flight: Flight | undefined;
  private readonly suspects = new Set<string>();
  private buffer = Buffer.alloc(0);
  private throttle: NodeJS.Timeout | undefined;

  constructor(config: KafkaConfig, events: SenderEvents) {
    this.config = config;
    this.events = events;
  }

  get busy(): boolean {
    return this.flight !== undefined;
  }

  add(group: Group): void {
    this.queue.push(group);
  }

  /** Sends what waits, if nothing is in flight and the broker is connected. */
  pump(): void {
    if (this.flight !== undefined || this.queue.length === 0 || this.throttle !== undefined) return;
    const link = this.events.link();
    if (link === undefined) return;
    const flight: Flight = { groups: this.take(), over: false };
    this.flight = flight;
    this.events.onBusy(true);
    void this.fly(link, flight);
  }

  /** Takes the groups back that were not sent, to be led elsewhere. */
  withdraw(): Group[] {
    const groups = this.queue;
    this.queue = [];
    return groups;
  }

  /** Reports what is in flight as unknown, now. What waits is not sent: the caller withdraws it, or pumps. */
  abandon(code: string, reason: string): void {
    clearTimeout(this.throttle);
    this.throttle = undefined;
    // The socket may still read from it.
    this.buffer = Buffer.alloc(0);
    if (this.flight !== undefined) this.land(this.flight, () => [unknown(code, reason)]);
  }

  private take(): Group[] {
    const alone = this.queue[0]!;
    if (this.suspects.has(alone.topicPartition)) {
      this.queue.shift();
      return [alone];
    }
    const taken: Group[] = [];
    const rest: Group[] = [];
    const seen = new Set<string>();
    let bytes = 0;
    for (const group of this.queue) {
      const fits = taken.length === 0 || bytes + group.bound <= MAX_REQUEST_BYTES;
      if (!fits || seen.has(group.topicPartition) || this.suspects.has(group.topicPartition)) {
        rest.push(group);
      } else {
        taken.push(group);
        bytes += group.bound;
      }
      seen.add(group.topicPartition);
    }
    this.queue = rest;
    // Batches of one topic stand side by side in a request.
    return taken.sort((a, b) => (a.topic < b.topic ? -1 : Number(a.topic > b.topic)));
  }

  private async fly(link: ProduceLink, flight: Flight): Promise<void> {
    await this.send(link, flight);
    this.pump();
  }

  /** After every wait the flight may be over: its messages were reported, and may be on their way again. */
  private async send(link: ProduceLink, flight: Flight): Promise<void> {
    const { groups } = flight;
    let body: Buffer;
    try {
      const compressed = this.config.compression === 'gzip' ? await gzipRecords(groups) : undefined;
      if (flight.over) return;
      for (const group of groups) group.stamp = this.events.stamp(group);
      body = this.encode(groups, compressed);
    } catch (error) {
      this.landUnencoded(flight, error);
      return;
    }
    try {
      const deadlineMs = this.config.requestTimeoutMs + ANSWER_MARGIN_MS;
      if (link.needsAuthentication) await link.authenticate(deadlineMs);
      if (flight.over) return;
      if (!this.events.mayWrite()) {
        this.land(flight, () => [LEASE_ENDED]);
        return;
      }
      const answer = await link.produce(body, deadlineMs);
      if (flight.over) return;
      this.rest(answer);
      const codes = errorCodes(answer);
      this.land(flight, (group) => {
        const code = codes.get(group.topicPartition);
        return [answeredOutcome(code, group, this.config.maxBatchBytes), code];
      });
    } catch (error) {
      // The socket may still read from it. An abandoned flight has lost it already; by now it is that of another.
      if (!flight.over) this.buffer = Buffer.alloc(0);
      const reason = toError(error);
      link.destroy(reason);
      if (groups.length > 1) for (const group of groups) this.suspects.add(group.topicPartition);
      this.land(flight, () => [unknown('connection-lost', reason.message)]);
    }
  }

  private encode(groups: readonly Group[], compressed?: CompressedRecords): Buffer {
    const bound = requestBound(groups, compressed);
    // One buffer for all requests: the one before has been answered, so nothing reads from it any more. Compressed ones
    // are short: a buffer of their own costs nothing that counts.
    let buffer = compressed === undefined ? this.buffer : Buffer.alloc(0);
    // Also when the bound is no number (a part that is no text): that throws here, before anything is written.
    if (!(buffer.length >= bound)) {
      buffer = Buffer.allocUnsafeSlow(bound);
      if (compressed === undefined && bound <= MAX_REQUEST_BYTES) this.buffer = buffer;
    }
    const { requestTimeoutMs } = this.config;
    return buffer.subarray(0, writeProduceRequest(buffer, groups, requestTimeoutMs, compressed));
  }

  /** Nothing was sent. One group is to blame; which one, shows when each is encoded alone. */
  private landUnencoded(flight: Flight, error: unknown): void {
    if (flight.over) return;
    if (flight.groups.length === 1) {
      this.land(flight, (group) => [refusedLocally(group, error)]);
      return;
    }
    for (const group of flight.groups) this.suspects.add(group.topicPartition);
    this.queue = [...flight.groups, ...this.queue];
    flight.groups = [];
    this.land(flight, (group) => [refusedLocally(group, error)]);
  }

  private land(flight: Flight, judge: (group: Group) => [Outcome, (number | undefined)?]): void {
    if (flight.over) return;
    flight.over = true;
    for (const group of flight.groups) {
      const [outcome, errorCode] = judge(group);
      if (outcome.kind === 'durable') this.suspects.delete(group.topicPartition);
      this.events.settle(group, outcome, errorCode);
    }
    // Only now: whoever hands over more from within an outcome must not start the next request inside of this one.
    this.flight = undefined;
    this.events.onBusy(false);
  }

  /** The broker asks for a pause when a quota is used up (KIP-219); what is sent meanwhile only waits there. */
  private rest(answer: ProduceAnswer): void {
    const ms = answer.throttleTimeMs;
    if (ms <= 0) return;
    this.throttle = setTimeout(() => {
      this.throttle = undefined;
      this.pump();
    }, ms);
  }
}

function errorCodes(answer: ProduceAnswer): Map<string, number> {
  const codes = new Map<string, number>();
  for (const { topicName, partitions } of answer.topics) {
    for (const { partition, errorCode } of partitions) codes.set(`${topicName}:${partition}`, errorCode);
  }
  return codes;
}
