import type { Channel, ChannelModel } from 'amqplib';
import type { RabbitmqConfig } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';
import { messageOf } from '../../../errors/thrown.ts';
import type { Outcome } from '../publisher.ts';
import type { Entry } from './confirm-window.ts';
import { refused } from './properties.ts';

/** How long "missing" is believed: a backlog for one missing exchange must not cost a channel for each message. */
const BELIEVE_MISSING_MS = 500;
const MAX_NAME_BYTES = 255;

type Admission = { readonly ok: true } | { readonly ok: false; readonly outcome: Outcome };

export interface ExchangesOptions {
  readonly config: RabbitmqConfig;
  readonly model: ChannelModel;
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
  /** The exchange is there: send. */
  readonly release: (entries: readonly Entry[]) => void;
  readonly refuse: (entries: readonly Entry[], outcome: Outcome) => void;
  /** The one exchange of all events can't be used as configured. */
  readonly onFatal: (error: RelayError) => void;
}

/**
 * Knows which exchanges exist. Publishing to a missing one closes the channel and fails everything outstanding on it;
 * so each is checked, or declared, on a channel of its own before the first message goes there.
 */
export class Exchanges {
  private readonly options: ExchangesOptions;
  /** The default exchange, named '', always exists and may not be checked. */
  private readonly present = new Set(['']);
  private readonly missing = new Map<string, { readonly untilMs: number; readonly outcome: Outcome }>();
  private readonly waiting = new Map<string, Entry[]>();
  private channel: Channel | undefined;
  private checking = false;
  private startedAtMs: number | undefined;
  private ended = false;

  constructor(options: ExchangesOptions) {
    this.options = options;
  }

  isPresent(exchange: string): boolean {
    return this.present.has(exchange);
  }

  /** When the check that is under way was sent. */
  get oldestSentAtMs(): number | undefined {
    return this.startedAtMs;
  }

  /** After a channel was closed: an exchange may have been removed. */
  forget(): void {
    this.present.clear();
    this.present.add('');
  }

  /** Holds the entry until its exchange is known. Returns an outcome when it is known to be unusable. */
  admit(entry: Entry): Outcome | undefined {
    const exchange = entry.message.destination;
    if (Buffer.byteLength(exchange) > MAX_NAME_BYTES) {
      return refused('not-encodable', `the name of the exchange is longer than ${MAX_NAME_BYTES} bytes`);
    }
    const missing = this.missing.get(exchange);
    if (missing !== undefined && this.options.now() < missing.untilMs) return missing.outcome;
    const waiting = this.waiting.get(exchange);
    if (waiting === undefined) this.waiting.set(exchange, [entry]);
    else waiting.push(entry);
    if (!this.checking) void this.checkAll();
    return undefined;
  }

  /** Takes out everything that waits; nothing is released afterwards. */
  takeAll(): Entry[] {
    this.ended = true;
    const entries = [...this.waiting.values()].flat();
    this.waiting.clear();
    return entries;
  }

  private async checkAll(): Promise<void> {
    this.checking = true;
    for (let next = this.waiting.keys().next(); next.done !== true; next = this.waiting.keys().next()) {
      const exchange = next.value;
      this.startedAtMs = this.options.now();
      const admission = await this.check(exchange);
      // The connection ended: whoever ended it has taken the entries.
      if (this.ended) break;
      this.decided(exchange, admission);
    }
    this.startedAtMs = undefined;
    this.checking = false;
  }

  private decided(exchange: string, admission: Admission): void {
    const entries = this.waiting.get(exchange) ?? [];
    this.waiting.delete(exchange);
    if (admission.ok) {
      this.missing.delete(exchange);
      this.present.add(exchange);
      this.options.release(entries);
      return;
    }
    if (admission.outcome.kind === 'rejected') this.believeMissing(exchange, admission.outcome);
    this.options.refuse(entries, admission.outcome);
  }

  private believeMissing(exchange: string, outcome: Outcome): void {
    const now = this.options.now();
    for (const [name, { untilMs }] of this.missing) if (untilMs < now) this.missing.delete(name);
    this.missing.set(exchange, { untilMs: now + BELIEVE_MISSING_MS, outcome });
  }

  private async check(exchange: string): Promise<Admission> {
    try {
      if (this.options.config.declare) await this.declare(exchange);
      else await (await this.open()).checkExchange(exchange);
      return { ok: true };
    } catch (error) {
      return { ok: false, outcome: this.refusal(exchange, error) };
    }
  }

  private async declare(exchange: string): Promise<void> {
    const { exchangeType } = this.options.config;
    try {
      await (await this.open()).assertExchange(exchange, exchangeType, { durable: true });
    } catch (error) {
      // Without the permission to configure, an exchange that somebody else declared is good enough.
      if ((error as { code?: unknown }).code !== 403) throw error;
      await (await this.open()).checkExchange(exchange);
    }
  }

  private refusal(exchange: string, error: unknown): Outcome {
    const code = (error as { code?: unknown }).code;
    const { config, onFatal } = this.options;
    if (code === 404) return unusable('exchange-missing', `exchange "${exchange}" does not exist`);
    if (code === 403) return unusable('access-refused', messageOf(error));
    if (code !== 406 || !config.declare)
      return { kind: 'unknown', code: 'exchange-check-failed', reason: messageOf(error) };
    const cause = mismatch(exchange, error, config);
    // An exchange that a row has named is that row's trouble: to halt for it would hold up all others.
    if (!config.exchangeIsConstant) return unusable(cause.code, `${cause.message}. ${cause.advice}`);
    onFatal(cause);
    return { kind: 'unknown', code: 'exchange-check-failed', reason: messageOf(error) };
  }

  private async open(): Promise<Channel> {
    if (this.channel !== undefined) return this.channel;
    const channel = await this.options.model.createChannel();
    // The reply to the check brings the error; without a listener the event would end the process.
    channel.on('error', () => undefined);
    channel.on('close', () => {
      if (this.channel === channel) this.channel = undefined;
    });
    this.channel = channel;
    return channel;
  }
}

function unusable(code: string, reason: string): Outcome {
  return { kind: 'rejected', code, reason, permanent: false, scope: 'event', missingDestination: true };
}

function mismatch(exchange: string, cause: unknown, config: RabbitmqConfig): RelayError {
  const message = `exchange "${exchange}" exists, but not as a durable ${config.exchangeType} exchange: ${messageOf(cause)}`;
  return new RelayError('stop', 'rabbitmq-exchange-mismatch', message, {
    advice:
      'Set RABBITMQ_EXCHANGE_TYPE to the type that it has, or let the relay only check it instead of declaring it.',
    cause,
  });
}
