import { faultPoint } from '../../lifecycle/fault-point.ts';
import type { Message } from '../envelope/message.ts';
import type { Delivery } from './lane.ts';
import { Lanes, type LanePolicy, type Verdict } from './lanes.ts';
import type { Outcome, Publisher } from './publisher.ts';

export interface DispatcherOptions {
  readonly publisher: Publisher;
  readonly policy: Omit<LanePolicy, 'laneLimit'>;
  /** False while this process may not publish: everything waits until the next `schedule`. */
  readonly mayStart: () => boolean;
  readonly onVerdicts: (verdicts: readonly Verdict[]) => void;
  /** Every answer that was not durable, for metrics and the log. */
  readonly onFailure: (outcome: Exclude<Outcome, { kind: 'durable' }>, message: Message) => void;
}

/**
 * Keeps the publisher busy: takes what the lanes allow whenever there is room. While one request is in flight the next
 * batch grows, so there is no linger when idle and no small request under load.
 */
export class Dispatcher {
  private readonly options: DispatcherOptions;
  private readonly lanes: Lanes;
  private outstanding = 0;
  /** Of this turn: a confirm can stand for many messages, and each call of those who settle them costs more than one. */
  private verdicts: Verdict[] = [];
  private readonly idleWaiters: (() => void)[] = [];
  private scheduled = false;
  private stopped = false;
  private unknownAfterStop = 0;
  private retryTimer: NodeJS.Timeout | undefined;

  constructor(options: DispatcherOptions) {
    this.options = options;
    const { publisher } = options;
    this.lanes = new Lanes({ ...options.policy, laneLimit: publisher.laneLimit }, publisher);
  }

  /** Messages held, with the broker or waiting. */
  get size(): number {
    return this.lanes.size;
  }

  /** After `stop`: messages that were sent and of which nobody knows what became. */
  get unknown(): number {
    return this.outstanding + this.unknownAfterStop;
  }

  /** After `stop` it is ignored: it would only be held, and the drain would wait for it. */
  add(message: Message): void {
    if (this.stopped) return;
    this.lanes.add(message);
    this.schedule();
  }

  /** There may be room, or something to send: looked at once, after everything that happens in this turn. */
  schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(this.turn);
  }

  /** Sends nothing more. What is with the broker is still answered. */
  stop(): void {
    this.stopped = true;
    clearTimeout(this.retryTimer);
    this.unknownAfterStop += this.lanes.discardQueued();
    this.notifyIdle();
  }

  /** Resolves when nothing is held any more (after `stop`: when everything with the broker was answered). */
  async idle(): Promise<void> {
    while (this.lanes.size > 0 || this.verdicts.length > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.idleWaiters.push(resolve);
      await promise;
    }
  }

  private readonly turn = (): void => {
    this.scheduled = false;
    const { verdicts } = this;
    this.verdicts = [];
    if (verdicts.length > 0) this.options.onVerdicts(verdicts);
    this.pump();
    this.notifyIdle();
  };

  private pump(): void {
    const { publisher, mayStart } = this.options;
    for (let room = publisher.room(); room > 0 && !this.stopped && mayStart(); room = publisher.room()) {
      const deliveries = this.lanes.take(room, publisher.maxPublishBytes, performance.now());
      if (deliveries.length === 0) break;
      for (const delivery of deliveries) delivery.message.delivery = delivery;
      this.outstanding += deliveries.length;
      faultPoint('after-receive-before-publish');
      publisher.publish(
        deliveries.map(({ message }) => message),
        this.onOutcome,
      );
      faultPoint('after-publish-before-outcome');
    }
    this.scheduleRetry();
  }

  private readonly onOutcome = (message: Message, outcome: Outcome): void => {
    const delivery = message.delivery as Delivery | undefined;
    if (!delivery) throw new RangeError('an outcome for a message that is not outstanding');
    message.delivery = undefined;
    this.outstanding--;
    if (outcome.kind !== 'durable') this.options.onFailure(outcome, message);
    if (outcome.kind === 'unknown' && this.stopped) this.unknownAfterStop++;
    for (const verdict of this.lanes.answer(delivery, outcome, performance.now()))
      this.verdicts.push(verdict);
    this.schedule();
  };

  private scheduleRetry(): void {
    clearTimeout(this.retryTimer);
    const { publisher, mayStart } = this.options;
    // Whoever makes room, or renews the lease, wakes it.
    if (this.stopped || publisher.room() === 0 || !mayStart()) return;
    const retryAtMs = this.lanes.nextRetryMs();
    if (retryAtMs === undefined) return;
    this.retryTimer = setTimeout(() => this.schedule(), Math.max(1, retryAtMs - performance.now()));
  }

  private notifyIdle(): void {
    if (this.lanes.size > 0) return;
    for (const resolve of this.idleWaiters.splice(0)) resolve();
  }
}
