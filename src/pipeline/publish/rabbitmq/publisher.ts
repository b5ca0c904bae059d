import type { RabbitmqConfig } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';
import { messageOf } from '../../../errors/thrown.ts';
import { Backoff } from '../../../lifecycle/backoff.ts';
import { orAborted } from '../../../lifecycle/wait.ts';
import type { Message } from '../../envelope/message.ts';
import { Pace } from '../../pace.ts';
import { mayWrite } from '../publisher.ts';
import type { OnOutcome, Outcome, Publisher, PublisherEvents } from '../publisher.ts';
import { RoomNotice } from '../room-notice.ts';
import { Unanswered } from '../unanswered.ts';
import { Apart } from './apart.ts';
import type { SessionEvents } from './apart.ts';
import type { Entry } from './confirm-window.ts';
import { openConnection } from './connection.ts';
import type { Connection } from './connection.ts';
import { Session } from './session.ts';
import type { SessionOptions } from './session.ts';
import { Suspects } from './suspects.ts';

const BACKOFF_FIRST_MS = 100;
const BACKOFF_MAX_MS = 10_000;
/** A connection that lives shorter and confirms nothing counts as one more failure in a row. */
const STABLE_AFTER_MS = 5_000;
/** A polite goodbye, when the broker still answers. */
const GOODBYE_MS = 1_000;
/** A broker allows 2,047 channels, where nobody changed it. */
const CHANNELS_APART = 100;
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
  private readonly suspectsApart = new Suspects(true);
  private readonly apart: Apart;
  private readonly backoff = new Backoff({ firstMs: BACKOFF_FIRST_MS, maxMs: BACKOFF_MAX_MS });
  private readonly abort = new AbortController();
  private session: Session | undefined;
  private opening: Promise<void> | undefined;
  private connectedBefore = false;
  private readonly unanswered = new Unanswered();
  private answered = false;
  private readonly notice: RoomNotice;
  private readonly pace = new Pace(performance.now(), REST_MS);
  private rest: NodeJS.Timeout | undefined;
  private refusals: { readonly entry: Entry; readonly outcome: Outcome }[] = [];
  private closing: Promise<void> | undefined;

  constructor(config: RabbitmqConfig, events: PublisherEvents) {
    this.config = config;
    this.events = events;
    this.notice = new RoomNotice(
      () => this.freeSlots(),
      () => events.onRoom(),
    );
    this.apart = new Apart({
      open: (sessionEvents) => this.openApart(sessionEvents),
      settle: (entry, outcome) => this.settle(entry, outcome),
      onFirst: (message) => this.events.onNotice?.(toldOf(message)),
      signal: this.abort.signal,
      goodbyeMs: GOODBYE_MS,
    });
  }

  async connect(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.abort.signal.throwIfAborted();
    if (this.session !== undefined) return;
    await orAborted(this.opening ?? this.open(signal), signal);
  }

  /** Without a key there is no order to keep: a lane of its own. */
  laneOf(message: Message): string {
    return message.key ?? message.id;
  }

  room(): number {
    return this.notice.look();
  }

  publish(messages: readonly Message[], onOutcome: OnOutcome): void {
    const sentAtMs = performance.now();
    this.unanswered.add(messages.length);
    for (const message of messages) {
      const entry: Entry = { message, onOutcome, sentAtMs, verdict: undefined };
      if (this.apart.has(message)) {
        this.apart.send(entry);
        continue;
      }
      const refusal = this.session === undefined ? NOT_CONNECTED : this.session.send(entry);
      if (refusal !== undefined) this.refuseLater(entry, refusal);
    }
    this.session?.flush();
    this.restAfter(messages.length);
    this.notice.look();
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
      this.notice.changed();
    }, restMs);
  }

  private freeSlots(): number {
    if (this.rest !== undefined) return 0;
    if (this.session?.ready !== true || this.closing !== undefined) return 0;
    return Math.max(0, this.config.window - this.unanswered.count);
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
    this.notice.changed();
  }

  private async openApart(events: SessionEvents): Promise<Session> {
    const { config, suspectsApart: suspects } = this;
    const { signal } = this.abort;
    const connection = await openConnection({ config, signal, connectedBefore: true });
    if (signal.aborted) connection.destroy();
    signal.throwIfAborted();
    suspects.connected();
    return new Session({
      ...this.sessionOptions(connection),
      ...events,
      suspects,
      aloneAtATime: CHANNELS_APART,
    });
  }

  private sessionOptions(connection: Connection): SessionOptions {
    return {
      config: this.config,
      connection,
      suspects: this.suspects,
      now: () => performance.now(),
      mayWrite: () => mayWrite(this.events),
      settle: (entry, outcome) => {
        this.answered ||= outcome.kind === 'durable';
        this.settle(entry, outcome);
      },
      onReady: () => this.notice.changed(),
      onLost: (reason) => this.lost(reason),
      onFatal: (error) => this.events.onFatal(error),
      onHeldUp: (message) => this.apart.add(message),
      aloneAtATime: 1,
    };
  }

  private lost(reason: string): void {
    const { session } = this;
    this.session = undefined;
    this.notice.look();
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
        const reason = messageOf(error);
        if (reason !== reported) this.events.onConnection(false, reason);
        reported = reason;
      }
    }
  }

  private settle(entry: Entry, outcome: Outcome): void {
    this.unanswered.answered(1);
    entry.onOutcome(entry.message, outcome);
    this.notice.changed();
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

  private async shutDown(deadlineMs: number): Promise<void> {
    await this.unanswered.none(deadlineMs);
    this.abort.abort();
    const { session } = this;
    const { count } = this.unanswered;
    const error = count > 0 ? new Error(`closed with ${count} messages unconfirmed`) : undefined;
    const apart = this.apart.close(error);
    if (error !== undefined) session?.tearDown(error);
    else await session?.end(GOODBYE_MS);
    this.session = undefined;
    await apart;
    await this.opening?.catch(() => undefined);
    this.notice.close();
    clearTimeout(this.rest);
  }
}

const NOT_CONNECTED: Outcome = Object.freeze({
  kind: 'unknown',
  code: 'not-connected',
  reason: 'there is no connection to RabbitMQ',
});

function toldOf({ destination, routingKey }: Message): string {
  return (
    'messages that RabbitMQ does not answer in time, or closes the connection over, are tried again on a connection of ' +
    `their own, the first of them for exchange "${destination}" and routing key "${routingKey}": others do not wait for them`
  );
}
