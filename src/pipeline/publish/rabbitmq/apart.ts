import { Backoff } from '../../../lifecycle/backoff.ts';
import type { Message } from '../../envelope/message.ts';
import type { Outcome } from '../publisher.ts';
import type { Entry } from './confirm-window.ts';
import { lostOutcome } from './errors.ts';
import type { Session, SessionOptions } from './session.ts';

const BACKOFF_FIRST_MS = 100;
const BACKOFF_MAX_MS = 10_000;

export type ApartSession = Pick<Session, 'ready' | 'send' | 'flush' | 'end' | 'tearDown'>;

/** What a session tells whom it belongs to. */
export type SessionEvents = Pick<SessionOptions, 'settle' | 'onReady' | 'onLost' | 'onHeldUp'>;

export interface ApartOptions {
  /** Opens a connection; rejects when it can't, or when the signal aborts. */
  readonly open: (events: SessionEvents) => Promise<ApartSession>;
  readonly settle: (entry: Entry, outcome: Outcome) => void;
  /** For the operator: it has come to that. Told once. */
  readonly onFirst: (message: Message) => void;
  readonly signal: AbortSignal;
  /** A polite goodbye, when the broker still answers. */
  readonly goodbyeMs: number;
}

/**
 * A connection of its own for messages that a connection was held up by, or broke over, or may have been. RabbitMQ does
 * not keep that to the queue that is at fault: it reads no further from a connection on which more than 32 messages of a
 * channel wait for one quorum queue (`quorum_commands_soft_limit`); on a new channel it waits a minute for a quorum queue
 * without a majority before it looks at the message behind (`net_ticktime`); and a crash over one message closes the
 * connection. So what is sent again and again must not be sent where the others are. Here each is alone on a channel:
 * who did nothing is confirmed at once, and no channel ever has a second copy of a message. When one of them is late the
 * connection is opened anew, and with it the broker forgets the copies that it could not hand to a queue.
 */
export class Apart {
  private readonly options: ApartOptions;
  /** How often it may have been this one. Weak: one that is parked meanwhile never comes back. */
  private readonly heldUp = new WeakMap<Message, number>();
  /** Whether `heldUp` was ever used: the question is asked for every message. */
  private any = false;
  private readonly backoff = new Backoff({ firstMs: BACKOFF_FIRST_MS, maxMs: BACKOFF_MAX_MS });
  private session: ApartSession | undefined;
  private opening: Promise<void> | undefined;
  /** Not yet sent. */
  private waiting: Entry[] = [];
  private outstanding = 0;
  private ending: Promise<void> | undefined;
  private told = false;

  constructor(options: ApartOptions) {
    this.options = options;
  }

  /** True when the message must be sent here. */
  has(message: Message): boolean {
    return this.any && this.heldUp.has(message);
  }

  add(message: Message): void {
    this.any = true;
    this.heldUp.set(message, (this.heldUp.get(message) ?? 0) + 1);
  }

  /** Takes the entry; it is settled later, never from inside this call. */
  send(entry: Entry): void {
    if (!this.told) this.options.onFirst(entry.message);
    this.told = true;
    this.waiting.push(entry);
    if (this.waiting.length === 1) queueMicrotask(() => this.pump());
  }

  /** Ends the connection, at once with an error. Everything that is here is unknown then. */
  async close(error?: Error): Promise<void> {
    const { session } = this;
    if (error === undefined) await session?.end(this.options.goodbyeMs);
    else session?.tearDown(error);
    this.session = undefined;
    this.failWaiting(error ?? new Error('closed'));
    await this.opening;
    await this.ending;
  }

  private pump(): void {
    const { session } = this;
    if (this.waiting.length === 0) return;
    if (session === undefined) {
      this.opening ??= this.open();
      return;
    }
    if (!session.ready) return;
    const entries = this.waiting.splice(0);
    // There are not channels for any number of them: who was late here has the last turn.
    entries.sort((a, b) => this.times(a) - this.times(b));
    this.outstanding += entries.length;
    for (const entry of entries) {
      const refusal = session.send(entry);
      if (refusal !== undefined) this.settle(entry, refusal);
    }
    session.flush();
  }

  private times({ message }: Entry): number {
    return this.heldUp.get(message) ?? 0;
  }

  /** Never rejects. */
  private async open(): Promise<void> {
    const { signal } = this.options;
    try {
      // The lanes try again at their own times: all together they would be too many.
      await this.backoff.wait(signal);
      signal.throwIfAborted();
      this.session = await this.options.open(this.sessionEvents());
    } catch (error) {
      this.failWaiting(error);
    }
    this.opening = undefined;
    this.pump();
  }

  private sessionEvents(): SessionEvents {
    return {
      settle: (entry, outcome) => this.settle(entry, outcome),
      onReady: () => this.pump(),
      onLost: () => this.lost(),
      onHeldUp: (message) => this.add(message),
    };
  }

  private lost(): void {
    this.session = undefined;
    this.failWaiting(new Error('the connection apart was closed'));
  }

  private settle(entry: Entry, outcome: Outcome): void {
    this.outstanding--;
    if (outcome.kind === 'durable') this.backoff.reset();
    if (outcome.kind !== 'unknown') this.heldUp.delete(entry.message);
    this.options.settle(entry, outcome);
    if (outcome.kind !== 'unknown' && this.outstanding === 0 && this.waiting.length === 0) this.rest();
  }

  /** The connection is not kept for what may never come. */
  private rest(): void {
    const { session } = this;
    this.session = undefined;
    this.ending = session?.end(this.options.goodbyeMs);
  }

  private failWaiting(error: unknown): void {
    const outcome = lostOutcome(error);
    for (const entry of this.waiting.splice(0)) this.options.settle(entry, outcome);
  }
}
