import type { RabbitmqConfig } from '../../../config/config.ts';
import type { RelayError } from '../../../errors/errors.ts';
import { within } from '../../../lifecycle/wait.ts';
import type { Message } from '../../envelope/message.ts';
import { LEASE_ENDED, type Outcome } from '../publisher.ts';
import { connectionOf } from './amqplib.ts';
import { ConfirmReader } from './confirm-reader.ts';
import { ConfirmWindow } from './confirm-window.ts';
import type { Entry } from './confirm-window.ts';
import type { Connection } from './connection.ts';
import { blameOf, blockedTooLong, confirmTimeout, culpritOutcome, lostOutcome, reasonOf } from './errors.ts';
import { Exchanges } from './exchanges.ts';
import { FrameWriter } from './frame-writer.ts';
import { isOverdue } from './overdue.ts';
import { Probe } from './probe.ts';
import { refusalBeforeSending } from './properties.ts';
import type { Suspects } from './suspects.ts';

/** How often within the confirm deadline it is looked at. */
const CHECKS_PER_DEADLINE = 10;

export interface SessionOptions {
  readonly config: RabbitmqConfig;
  readonly connection: Connection;
  readonly suspects: Suspects;
  /** So many suspects are sent at a time, each on a channel of its own. */
  readonly aloneAtATime: number;
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
  /** Asked right before a message is written. */
  readonly mayWrite: () => boolean;
  /** Called once for every entry, never from inside `send`. */
  readonly settle: (entry: Entry, outcome: Outcome) => void;
  /** `ready` may have become true. */
  readonly onReady: () => void;
  /** The connection is gone; everything outstanding has been settled. Called once, not after `end`. */
  readonly onLost: (reason: string) => void;
  readonly onFatal: (error: RelayError) => void;
  /** It may be this message that the connection waited for or broke over: it should not be sent with others again. */
  readonly onHeldUp: (message: Message) => void;
}

/** One connection, from its opening to its end, and everything that is outstanding on it. */
export class Session {
  readonly startedAtMs: number;
  private readonly options: SessionOptions;
  private readonly exchanges: Exchanges;
  /** A `Wire`, for the windows. */
  readonly writer: FrameWriter;
  readonly reader: ConfirmReader;
  private readonly probe: Probe;
  /** Undefined while it is opened again after the broker closed it. */
  private main: ConfirmWindow | undefined;
  private reopeningSinceMs: number | undefined;
  private blockedAtMs: number | undefined;
  private unblockedAtMs: number;
  private ended = false;
  private lastError: unknown;
  /** When the deadline was last looked at. */
  private lookedAtMs: number;
  private readonly timer: NodeJS.Timeout;

  constructor(options: SessionOptions) {
    this.options = options;
    const { config, connection, now, settle, suspects } = options;
    this.startedAtMs = now();
    this.unblockedAtMs = this.startedAtMs;
    this.lookedAtMs = this.startedAtMs;
    const wire = connectionOf(connection.model);
    this.writer = new FrameWriter(wire, () => options.onReady());
    this.reader = new ConfirmReader(wire);
    this.main = this.watch(connection.confirms);
    this.exchanges = new Exchanges({
      config,
      model: connection.model,
      now,
      release: (entries) => this.release(entries),
      refuse: (entries, outcome) => entries.forEach((entry) => settle(entry, outcome)),
      onFatal: options.onFatal,
    });
    this.probe = new Probe({
      open: () => connection.model.createConfirmChannel(),
      wire: this,
      width: () => (suspects.quarantine ? 1 : options.aloneAtATime),
      now,
      mayWrite: options.mayWrite,
      settle: (entry, outcome) => {
        suspects.settled(entry.message, outcome);
        settle(entry, outcome);
      },
      onBlame: (blame, message) => suspects.channelClosed(blame, [message]),
    });
    this.listen();
    this.timer = setInterval(() => this.checkDeadline(), config.confirmTimeoutMs / CHECKS_PER_DEADLINE);
  }

  /** True when messages may be handed over now. */
  get ready(): boolean {
    return this.main !== undefined && this.writer.writable && this.blockedAtMs === undefined && !this.ended;
  }

  /** Call once after the `send`s of a batch. */
  flush(): void {
    if (!this.ended) this.writer.flush();
  }

  /** Takes the entry for the next flush, or returns why not. */
  send(entry: Entry): Outcome | undefined {
    if (this.ended) return lostOutcome(this.lastError);
    const { message } = entry;
    const refusal = refusalBeforeSending(message, this.options.suspects.maxBodyBytes);
    if (refusal !== undefined) return refusal;
    if (!this.exchanges.isPresent(message.destination)) return this.exchanges.admit(entry);
    return this.dispatch(entry);
  }

  /** Ends the connection politely when it still answers within `deadlineMs`. Nothing may be outstanding any more. */
  async end(deadlineMs: number): Promise<void> {
    if (this.ended) return;
    this.finish();
    const { model, destroy } = this.options.connection;
    // The library waits for ever for the answer of a peer that is gone.
    await within(
      model.close().catch(() => undefined),
      deadlineMs,
      () => undefined,
    );
    destroy();
  }

  /** Ends the connection at once; everything outstanding becomes unknown. */
  tearDown(error: unknown): void {
    if (this.ended) return;
    this.finish();
    this.lastError = error;
    this.options.connection.destroy();
    this.failAll(error);
    this.options.onLost(reasonOf(error));
  }

  private dispatch(entry: Entry): Outcome | undefined {
    if (this.options.suspects.has(entry.message)) {
      this.probe.push(entry);
      return undefined;
    }
    if (this.main === undefined) return lostOutcome(this.lastError);
    return this.options.mayWrite() ? this.main.send(entry) : LEASE_ENDED;
  }

  private release(entries: readonly Entry[]): void {
    const now = this.options.now();
    for (const entry of entries) {
      entry.sentAtMs = now;
      const outcome = this.dispatch(entry);
      if (outcome !== undefined) this.options.settle(entry, outcome);
    }
    this.flush();
  }

  private listen(): void {
    const { model } = this.options.connection;
    model.on('error', (error) => (this.lastError = error));
    model.on('close', (error) =>
      this.tearDown(error ?? this.lastError ?? new Error('the connection was closed')),
    );
    model.on('blocked', () => (this.blockedAtMs ??= this.options.now()));
    model.on('unblocked', () => {
      this.blockedAtMs = undefined;
      this.unblockedAtMs = this.options.now();
      this.options.onReady();
    });
  }

  private watch(channel: Connection['confirms']): ConfirmWindow {
    return new ConfirmWindow(channel, this, {
      settle: this.options.settle,
      onClosed: (error) => void this.reopen(error),
    });
  }

  /** The broker closed the channel: everything on it is unknown, and what is known of the exchanges may be out of date. */
  private async reopen(error: Error): Promise<void> {
    const entries = this.main?.takeAll() ?? [];
    this.main = undefined;
    this.lastError = error;
    this.reopeningSinceMs = this.options.now();
    this.exchanges.forget();
    const { suspects, settle, connection } = this.options;
    suspects.channelClosed(
      blameOf(error),
      entries.map((entry) => entry.message),
    );
    const alone = entries.length === 1;
    for (const entry of entries) settle(entry, alone ? culpritOutcome(error) : lostOutcome(error));
    try {
      const channel = await connection.model.createConfirmChannel();
      if (this.ended) return;
      this.main = this.watch(channel);
      this.reopeningSinceMs = undefined;
      this.options.onReady();
    } catch (failure) {
      this.tearDown(failure);
    }
  }

  private finish(): void {
    this.ended = true;
    clearInterval(this.timer);
  }

  private failAll(error: unknown): void {
    const sent = [...(this.main?.takeAll() ?? []), ...this.probe.sent];
    const blame = blameOf(error);
    this.options.suspects.connectionClosed(
      blame,
      sent.map((entry) => entry.message),
    );
    const culprit = sent.length === 1 ? sent[0] : undefined;
    const [outcome, verdict] = [lostOutcome(error), culpritOutcome(error)];
    // It will be sent again, and may close each connection that it is sent on.
    if (culprit !== undefined && blame.kind === 'some-message' && verdict.kind === 'unknown')
      this.options.onHeldUp(culprit.message);
    for (const entry of new Set([...sent, ...this.probe.takeAll(), ...this.exchanges.takeAll()])) {
      this.options.settle(entry, entry === culprit ? verdict : outcome);
    }
  }

  /** What should have been answered by now: one message alone, or the connection is half-open, or the broker hangs. */
  private checkDeadline(): void {
    const { blockedAtMs, unblockedAtMs, lookedAtMs } = this;
    const { confirmTimeoutMs } = this.options.config;
    this.lookedAtMs = this.options.now();
    // Late at the last look already: after the process was stopped for a while, the answers are waiting to be read.
    const isLate = (sinceMs: number): boolean =>
      isOverdue({ nowMs: lookedAtMs, sinceMs, blockedAtMs, unblockedAtMs, confirmTimeoutMs });
    if (blockedAtMs === undefined) this.giveUpPassed(isLate);
    const sinceMs = this.oldestSentAtMs();
    if (sinceMs === undefined || !isLate(sinceMs)) return;
    if (blockedAtMs !== undefined) return this.tearDown(blockedTooLong());
    this.suspectLate(isLate);
    this.tearDown(confirmTimeout(confirmTimeoutMs));
  }

  private giveUpPassed(isLate: (sinceMs: number) => boolean): void {
    const outcome = lostOutcome(confirmTimeout(this.options.config.confirmTimeoutMs));
    for (const entry of this.main?.takePassed(({ sentAtMs }) => isLate(sentAtMs)) ?? []) {
      this.options.onHeldUp(entry.message);
      this.options.settle(entry, outcome);
    }
  }

  /**
   * Which of the messages of one channel it is that the others wait for, each shows only when it is alone; one that was
   * alone has shown it.
   */
  private suspectLate(isLate: (sinceMs: number) => boolean): void {
    const { oldest } = this.main ?? {};
    const together = oldest !== undefined && isLate(oldest.sentAtMs) ? (this.main?.all() ?? []) : [];
    const alone = this.probe.sent.filter(({ sentAtMs }) => isLate(sentAtMs));
    for (const { message } of [...together, ...alone]) this.options.onHeldUp(message);
  }

  private oldestSentAtMs(): number | undefined {
    const times = [
      this.main?.oldest?.sentAtMs,
      ...this.probe.sent.map(({ sentAtMs }) => sentAtMs),
      this.exchanges.oldestSentAtMs,
      this.reopeningSinceMs,
    ].filter((time) => time !== undefined);
    return times.length === 0 ? undefined : Math.min(...times);
  }
}
