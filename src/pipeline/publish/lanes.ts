import type { Message } from '../envelope/message.ts';
import { isHeldUp, setApart, type Delivery, type Lane } from './lane.ts';
import { isMissing, MissingTargets, targetOf } from './missing-targets.ts';
import type { Outcome, Publisher } from './publisher.ts';

/** What became of a delivery once its lane had all its answers. */
export type Verdict =
  | { readonly kind: 'durable'; readonly message: Message; readonly sentAtMs: number }
  | {
      readonly kind: 'park';
      readonly message: Message;
      readonly code: string;
      readonly reason: string;
      readonly attempts: number;
    };

export interface LanePolicy {
  readonly laneLimit: { readonly events: number; readonly bytes: number };
  readonly maxAttempts: number;
  readonly topicGraceMs: number;
  /** Most events that lanes without a destination may hold back together. */
  readonly maxStuckEvents: number;
  /** Milliseconds until the n-th retry in a row. */
  readonly retryDelayMs: (failures: number) => number;
}

const NO_VERDICTS: readonly Verdict[] = [];

/** A destination that is away for a moment under load is no reason to park, even when its events fill the window. */
const SHORTEST_GRACE_MS = 5_000;

/**
 * Which message may go next, and what an answer means for it and for those behind it. Pure: time is a parameter.
 *
 * - A lane is sent again only after everything it had outstanding was answered.
 * - What was not durable goes back to its front, in its old order.
 * - `unknown` is retried for ever; a refusal about the event `maxAttempts` times; a missing destination for its grace.
 */
export class Lanes {
  private readonly policy: LanePolicy;
  private readonly publisher: Pick<Publisher, 'laneOf' | 'layoutOf'>;
  private readonly lanes = new Map<string, Lane>();
  private ready: Lane[] = [];
  private readonly waiting = new Set<Lane>();
  /** By destination: one about which the publisher knows nothing now. Asked one message at a time. */
  private readonly unknown = new Map<string, Lane>();
  private readonly missing: MissingTargets;
  private count = 0;
  private discarding = false;
  private nowMs = 0;

  constructor(policy: LanePolicy, publisher: Pick<Publisher, 'laneOf' | 'layoutOf'>) {
    this.policy = policy;
    this.missing = new MissingTargets(Math.max(policy.topicGraceMs, SHORTEST_GRACE_MS));
    this.publisher = publisher;
  }

  /** Messages held: queued or outstanding. */
  get size(): number {
    return this.count;
  }

  add(message: Message): void {
    // Behind those that wait for their lane to become known, although it may be known by now.
    const behindUnknown = this.unknown.size > 0 && this.unknown.has(message.destination);
    this.enqueue(behindUnknown ? undefined : this.publisher.laneOf(message), message);
    this.count++;
  }

  /** The next messages for one call of the publisher, each lane's in order; at most `room`, about `maxBytes`. */
  take(room: number, maxBytes: number, nowMs: number): Delivery[] {
    this.nowMs = nowMs;
    this.wake(nowMs);
    const taken: Delivery[] = [];
    let bytes = 0;
    let next = 0;
    while (next < this.ready.length && taken.length < room && bytes < maxBytes) {
      const lane = this.ready[next++] as Lane;
      if (lane.unknown && (this.mustWait(lane, nowMs) || this.resolve(lane))) continue;
      bytes += this.takeFrom(lane, taken, { room, nowMs });
    }
    this.ready.splice(0, next);
    return taken;
  }

  /** When the next lane that waits for its retry may be taken; undefined when none waits. */
  nextRetryMs(): number | undefined {
    let earliest: number | undefined;
    for (const lane of this.waiting) {
      if (earliest === undefined || lane.retryAtMs < earliest) earliest = lane.retryAtMs;
    }
    return earliest;
  }

  /** One answer. Verdicts come when the lane has all of its answers, for the deliveries that leave it. */
  answer(delivery: Delivery, outcome: Outcome, nowMs: number): readonly Verdict[] {
    if (delivery.outcome) throw new RangeError('two outcomes for one delivery');
    delivery.outcome = outcome;
    const { lane } = delivery;
    lane.unanswered--;
    return lane.unanswered === 0 ? this.conclude(lane, nowMs) : NO_VERDICTS;
  }

  /**
   * For good: forgets everything that is not with the broker. What is, is still answered, and not sent again. Returns
   * how many of the forgotten were sent before without an answer: they may be durable, and will be sent again.
   */
  discardQueued(): number {
    this.discarding = true;
    let unknown = 0;
    for (const lane of this.all()) {
      for (const { outcome } of lane.queue.slice(lane.outstanding))
        if (outcome?.kind === 'unknown') unknown++;
      this.count -= lane.queue.length - lane.outstanding;
      lane.queue.length = lane.outstanding;
      if (lane.outstanding === 0) this.remove(lane);
    }
    this.ready = [];
    this.waiting.clear();
    return unknown;
  }

  private enqueue(name: string | undefined, message: Message): void {
    const { destination } = message;
    let lane = name === undefined ? this.unknown.get(destination) : this.lanes.get(name);
    if (!lane) {
      const layout = this.publisher.layoutOf?.(destination);
      const unknown = name === undefined || this.holdsOtherLayout(destination, layout);
      lane = this.open({ name: name ?? '', destination, layout, unknown });
    }
    const delivery = { message, lane, sentAtMs: 0, attempts: 0, outcome: undefined, apart: false };
    if (isHeldUp(lane, this.nowMs)) setApart(delivery);
    lane.queue.push(delivery);
  }

  private open(kind: Pick<Lane, 'name' | 'destination' | 'layout' | 'unknown'>): Lane {
    const lane: Lane = {
      ...kind,
      queue: [],
      outstanding: 0,
      unanswered: 0,
      groupLimit: this.fullGroup(kind),
      failures: 0,
      retryAtMs: 0,
      missing: false,
    };
    if (lane.unknown) this.unknown.set(lane.destination, lane);
    else this.lanes.set(lane.name, lane);
    this.ready.push(lane);
    return lane;
  }

  private remove(lane: Lane): void {
    if (lane.unknown) this.unknown.delete(lane.destination);
    else this.lanes.delete(lane.name);
  }

  private *all(): Generator<Lane> {
    yield* this.lanes.values();
    yield* this.unknown.values();
  }

  private fullGroup({ unknown }: Pick<Lane, 'unknown'>): number {
    return unknown ? 1 : this.policy.laneLimit.events;
  }

  /** With another number of partitions a key has another lane: older messages of it must be gone before. */
  private holdsOtherLayout(destination: string, layout: number | undefined): boolean {
    if (layout === undefined) return false;
    for (const lane of this.lanes.values())
      if (lane.destination === destination && lane.layout !== layout) return true;
    return false;
  }

  /** Deals the messages of an unknown lane out to their lanes, once the publisher knows them. */
  private resolve(lane: Lane): boolean {
    if (this.publisher.laneOf((lane.queue[0] as Delivery).message) === undefined) return false;
    this.remove(lane);
    for (const { message } of lane.queue) this.enqueue(this.publisher.laneOf(message), message);
    return true;
  }

  /** Older messages of the destination, from when it was known, may still be in its lanes: none may be overtaken. */
  private mustWait(lane: Lane, nowMs: number): boolean {
    for (const other of this.lanes.values()) {
      if (other.destination !== lane.destination) continue;
      lane.retryAtMs = nowMs + this.policy.retryDelayMs(0);
      this.waiting.add(lane);
      return true;
    }
    return false;
  }

  private takeFrom(lane: Lane, taken: Delivery[], { room, nowMs }: { room: number; nowMs: number }): number {
    const limit = Math.min(lane.groupLimit, room - taken.length, lane.queue.length);
    let bytes = 0;
    while (lane.outstanding < limit) {
      const delivery = lane.queue[lane.outstanding] as Delivery;
      const size = delivery.message.sizeBytes;
      if (lane.outstanding > 0 && bytes + size > this.policy.laneLimit.bytes) break;
      delivery.outcome = undefined;
      delivery.sentAtMs = nowMs;
      bytes += size;
      taken.push(delivery);
      lane.outstanding++;
    }
    lane.unanswered = lane.outstanding;
    return bytes;
  }

  private wake(nowMs: number): void {
    for (const lane of this.waiting) {
      if (lane.retryAtMs > nowMs) continue;
      this.waiting.delete(lane);
      this.ready.push(lane);
    }
  }

  private conclude(lane: Lane, nowMs: number): Verdict[] {
    const [first] = lane.queue;
    if (lane.outstanding === 1 && first?.outcome?.kind === 'durable') return [this.concludeOne(lane, nowMs)];
    const group = lane.queue.slice(0, lane.outstanding);
    const verdicts: Verdict[] = [];
    const kept: Delivery[] = [];
    let probing = false;
    for (const delivery of group) {
      const verdict = this.judge(delivery, group.length, nowMs);
      if (verdict === 'probe') probing = true;
      if (verdict === 'retry' || verdict === 'probe') kept.push(delivery);
      else verdicts.push(verdict);
    }
    lane.queue = this.behind(lane, kept, group.length);
    lane.outstanding = 0;
    this.count -= verdicts.length;
    if (probing) lane.groupLimit = Math.max(1, Math.floor(group.length / 2));
    else if (kept.length === 0) lane.groupLimit = Math.min(lane.groupLimit * 2, this.fullGroup(lane));
    const refused = kept[0] ?? group.find(({ outcome }) => isMissing(outcome));
    verdicts.push(...this.giveUpMissing(lane, refused, nowMs));
    this.reschedule(lane, kept.length > 0 && !probing, nowMs);
    return verdicts;
  }

  /** What happens to nearly every event where a lane is a key: the general way makes six arrays of it. */
  private concludeOne(lane: Lane, nowMs: number): Verdict {
    const { message, sentAtMs } = lane.queue.shift() as Delivery;
    this.missing.found(message);
    this.count--;
    lane.outstanding = 0;
    lane.groupLimit = Math.min(lane.groupLimit * 2, this.fullGroup(lane));
    lane.missing = false;
    this.reschedule(lane, false, nowMs);
    return { kind: 'durable', message, sentAtMs };
  }

  /** The lane's queue after a group: what stays of it, in its old order, and what stood behind it. */
  private behind(lane: Lane, kept: Delivery[], groupSize: number): Delivery[] {
    if (this.discarding) {
      this.count -= kept.length;
      return [];
    }
    if (kept.length === 0 && groupSize === lane.queue.length) return [];
    return [...kept, ...lane.queue.slice(groupSize)];
  }

  private reschedule(lane: Lane, failed: boolean, nowMs: number): void {
    if (lane.queue.length === 0) {
      this.remove(lane);
      return;
    }
    if (!failed) {
      lane.failures = 0;
      this.ready.push(lane);
      return;
    }
    lane.retryAtMs = nowMs + this.policy.retryDelayMs(lane.failures++);
    this.waiting.add(lane);
    for (const delivery of lane.queue) setApart(delivery);
  }

  private judge(delivery: Delivery, groupSize: number, nowMs: number): Verdict | 'retry' | 'probe' {
    const outcome = delivery.outcome as Outcome;
    const { message } = delivery;
    if (outcome.kind === 'durable') {
      this.missing.found(message);
      return { kind: 'durable', message, sentAtMs: delivery.sentAtMs };
    }
    if (outcome.kind === 'unknown') return 'retry';
    if (outcome.scope === 'group' && groupSize > 1) return 'probe';
    delivery.attempts++;
    const { code, reason } = outcome;
    const parked: Verdict = { kind: 'park', message, code, reason, attempts: delivery.attempts };
    if (outcome.permanent) return parked;
    if (outcome.missingDestination === true) return this.graceOver(message, code, nowMs) ? parked : 'retry';
    return delivery.attempts >= this.policy.maxAttempts ? parked : 'retry';
  }

  private graceOver(message: Message, code: string, nowMs: number): boolean {
    return this.missing.forMs(message, code, nowMs) >= this.policy.topicGraceMs;
  }

  /**
   * Events without a destination must not stop the others by filling the window: beyond half of it, or once the grace
   * is over, the whole lane is given up without asking for each. A lane that an outage holds back keeps its events:
   * nothing is wrong with them.
   */
  private giveUpMissing(lane: Lane, first: Delivery | undefined, nowMs: number): Verdict[] {
    const outcome = first?.outcome;
    lane.missing = isMissing(outcome);
    if (!first || !isMissing(outcome) || lane.queue.length === 0) return [];
    const { code, reason } = outcome;
    const missingMs = this.missing.forMs(first.message, code, nowMs);
    const crowded = missingMs >= SHORTEST_GRACE_MS && this.tooManyMissing();
    if (missingMs < this.policy.topicGraceMs && !crowded) return [];
    const target = targetOf(first.message, code);
    const given = lane.queue.filter(({ message }) => targetOf(message, code) === target);
    lane.queue = lane.queue.filter(({ message }) => targetOf(message, code) !== target);
    this.count -= given.length;
    return given.map(({ message, attempts }) => ({ kind: 'park', message, code, reason, attempts }));
  }

  private tooManyMissing(): boolean {
    if (this.count <= this.policy.maxStuckEvents) return false;
    let held = 0;
    for (const lane of this.all()) if (lane.missing) held += lane.queue.length;
    return held > this.policy.maxStuckEvents;
  }
}
