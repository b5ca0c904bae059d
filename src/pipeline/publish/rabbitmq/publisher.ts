import type { RabbitmqConfig } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';
import { Backoff } from '../../../lifecycle/backoff.ts';
import type { Message } from '../../envelope/message.ts';
import { Pace } from '../../pace.ts';
import { mayWrite } from '../publisher.ts';
import type { OnOutcome, Outcome, Publisher, PublisherEvents } from '../publisher.ts';
import type { Entry } from './confirm-window.ts';
import { openConnection } from './connection.ts';
import { Session } from './session.ts';
import { Suspects } from './suspects.ts';

const BACKOFF_FIRST_MS = 100;
const BACKOFF_MAX_MS = 10_000;
/** A connection that lives shorter and confirms nothing counts as one more failure in a row. */
const STABLE_AFTER_MS = 5_000;
/** A polite goodbye, when the broker still answers. */
const GOODBYE_MS = 1_000;
/** One `publish` call keeps the event loop busy while it encodes: milliseconds for this many bytes. */
const MAX_PUBLISH_BYTES = 8 * 1024 * 1024;
/** A classic queue syncs its store for each small batch that arrives: with this rest it takes half as much again. */
const REST_MS = 1;

/**
 * Publishes with confirms in a sliding window, mandatory and persistent. Order holds on one channel only as long as
 * nothing is refused: with two messages of a key outstanding, a nack of the first would let the second overtake it.
 * So a lane is an ordering key and has one message outstanding.
 */
export function createRabbitmqPublisher(config: RabbitmqConfig, events: PublisherEvents): Publisher {
  return new RabbitmqPublisher(config, events);
}

class RabbitmqPublisher implements Publisher {
  readonly laneLimit = { events: 1, bytes: Number.MAX_SAFE_INTEGER };
  readonly maxPublishBytes = MAX_PUBLISH_BYTES;
  private readonly config: RabbitmqConfig;
  private readonly events: PublisherEvents;
  private readonly suspects = new Suspects();
  private readonly backoff = new Backoff({ firstMs: BACKOFF_FIRST_MS, maxMs: BACKOFF_MAX_MS });
  private readonly abort = new AbortController();
  private session: Session | undefined;
  private opening: Promise<void> | undefined;
  private connectedBefore = false;
  private outstanding = 0;
  private answered = false;
  /** The user of this publisher has seen no room and waits to be called. */
  private starved = true;
  private announcement: NodeJS.Immediate | undefined;
  private readonly pace = new Pace(performance.now(), REST_MS);
  private rest: NodeJS.Timeout | undefined;
  private refusals: { readonly entry: Entry; readonly outcome: Outcome }[] = [];
  private closing: Promise<void> | undefined;
  private onDrained: (() => void) | undefined;

  constructor(config: RabbitmqConfig, events: PublisherEvents) {
    this.config = config;
    this.events = events;
  }

  async connect(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.abort.signal.throwIfAborted();
    if (this.session !== undefined) return;
    await until(this.opening ?? this.open(signal), signal);
  }

  /** Without a key there is no order to keep: a lane of its own. */
  laneOf(message: Message): string {
    return message.key ?? message.id;
  }

  room(): number {
    const free = this.freeSlots();
    if (free === 0) this.starved = true;
    return free;
  }

  publish(messages: readonly Message[], onOutcome: OnOutcome): void {
    const sentAtMs = performance.now();
    this.outstanding += messages.length;
    for (const message of messages) {
      const entry: Entry = { message, onOutcome, sentAtMs, verdict: undefined };
      const refusal = this.session === undefined ? NOT_CONNECTED : this.session.send(entry);
      if (refusal !== undefined) this.refuseLater(entry, refusal);
    }
    this.session?.flush();
    this.restAfter(messages.length);
    this.room();
  }

  async close(deadlineMs: number): Promise<void> {
    this.closing ??= this.shutDown(deadlineMs);
    await this.closing;
  }

  private restAfter(events: number): void {
    const restMs = this.pace.restAfter(events, performance.now());
    if (restMs === 0 || this.rest !== undefined) return;
    this.rest = setTimeout(() => {
      this.rest = undefined;
      this.announceRoom();
    }, restMs);
  }

  private freeSlots(): number {
    if (this.rest !== undefined) return 0;
    if (this.session?.ready !== true || this.closing !== undefined) return 0;
    return Math.max(0, this.config.window - this.outstanding);
  }

  /** One attempt over all URLs. */
  private async open(signal: AbortSignal): Promise<void> {
    const attempt = {
      config: this.config,
      signal: AbortSignal.any([signal, this.abort.signal]),
      connectedBefore: this.connectedBefore,
    };
    this.opening = openConnection(attempt).then((connection) => {
      if (this.abort.signal.aborted) connection.destroy();
      else this.start(new Session(this.sessionOptions(connection)), connection.where);
    });
    try {
      await this.opening;
    } finally {
      this.opening = undefined;
    }
  }

  private start(session: Session, where: string): void {
    this.session = session;
    this.suspects.connected();
    this.connectedBefore = true;
    this.answered = false;
    this.events.onConnection(true, where);
    this.announceRoom();
  }

  private sessionOptions(connection: ConstructorParameters<typeof Session>[0]['connection']) {
    return {
      config: this.config,
      connection,
      suspects: this.suspects,
      now: () => performance.now(),
      mayWrite: () => mayWrite(this.events),
      settle: (entry: Entry, outcome: Outcome) => this.settle(entry, outcome),
      onReady: () => this.announceRoom(),
      onLost: (reason: string) => this.lost(reason),
      onFatal: (error: RelayError) => this.events.onFatal(error),
    };
  }

  private lost(reason: string): void {
    const { session } = this;
    this.session = undefined;
    this.starved = true;
    const livedMs = session === undefined ? 0 : performance.now() - session.startedAtMs;
    if (this.answered || livedMs > STABLE_AFTER_MS) this.backoff.reset();
    this.events.onConnection(false, reason);
    if (this.closing === undefined) void this.reconnect(reason);
  }

  private async reconnect(firstReason: string): Promise<void> {
    const { signal } = this.abort;
    let reported = firstReason;
    for (;;) {
      await this.backoff.wait(signal);
      if (signal.aborted || this.session !== undefined) return;
      try {
        await (this.opening ?? this.open(signal));
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof RelayError && error.consequence === 'stop') return this.events.onFatal(error);
        const reason = error instanceof Error ? error.message : String(error);
        if (reason !== reported) this.events.onConnection(false, reason);
        reported = reason;
      }
    }
  }

  private settle(entry: Entry, outcome: Outcome): void {
    this.outstanding--;
    if (outcome.kind === 'durable') this.answered = true;
    entry.onOutcome(entry.message, outcome);
    if (this.starved) this.announceRoom();
    if (this.outstanding === 0) this.onDrained?.();
  }

  /** Not from inside `publish`: its caller must not be called back before it has noted what it handed over. */
  private refuseLater(entry: Entry, outcome: Outcome): void {
    this.refusals.push({ entry, outcome });
    if (this.refusals.length > 1) return;
    queueMicrotask(() => {
      const refusals = this.refusals;
      this.refusals = [];
      for (const { entry: each, outcome: its } of refusals) this.settle(each, its);
    });
  }

  /** After the answers that have arrived together are all read, so that the next call brings a batch and not one. */
  private announceRoom(): void {
    if (!this.starved || this.announcement !== undefined) return;
    this.announcement = setImmediate(() => {
      this.announcement = undefined;
      if (this.freeSlots() === 0) return;
      this.starved = false;
      this.events.onRoom();
    });
  }

  private async shutDown(deadlineMs: number): Promise<void> {
    await this.drained(deadlineMs);
    this.abort.abort();
    const { session } = this;
    if (this.outstanding > 0)
      session?.tearDown(new Error(`closed with ${this.outstanding} messages unconfirmed`));
    else await session?.end(GOODBYE_MS);
    this.session = undefined;
    await this.opening?.catch(() => undefined);
    if (this.announcement !== undefined) clearImmediate(this.announcement);
    clearTimeout(this.rest);
  }

  private async drained(deadlineMs: number): Promise<void> {
    if (this.outstanding === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, deadlineMs);
      this.onDrained = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.onDrained = undefined;
  }
}

const NOT_CONNECTED: Outcome = Object.freeze({
  kind: 'unknown',
  code: 'not-connected',
  reason: 'there is no connection to RabbitMQ',
});

/** The result of `promise`, unless the signal aborts first. */
async function until(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
