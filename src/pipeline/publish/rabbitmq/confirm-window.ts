import type { ConfirmChannel, Message as AmqpMessage } from 'amqplib';
import type { Message } from '../../envelope/message.ts';
import { DURABLE } from '../publisher.ts';
import type { OnOutcome, Outcome } from '../publisher.ts';
import { messageOf } from '../../../errors/thrown.ts';
import { numberOf } from './amqplib.ts';
import type { ConfirmReader } from './confirm-reader.ts';
import type { FrameWriter } from './frame-writer.ts';
import { refused } from './properties.ts';
import { Unconfirmed } from './unconfirmed.ts';

/** A message handed over and not yet answered. */
export interface Entry {
  readonly message: Message;
  readonly onOutcome: OnOutcome;
  /** Monotonic clock, milliseconds: when it was handed over or, later, sent. */
  sentAtMs: number;
  /** What its acknowledgement means, when that is no longer "durable": it came back before. */
  verdict: Outcome | undefined;
}

export interface ConfirmWindowEvents {
  /** Called once for every entry that the broker answered. */
  readonly settle: (entry: Entry, outcome: Outcome) => void;
  /** The broker closed this channel; not called when the whole connection ends. */
  readonly onClosed: (error: Error) => void;
}

/** What a window needs of its connection. */
export interface Wire {
  readonly writer: Pick<FrameWriter, 'put'>;
  readonly reader: Pick<ConfirmReader, 'watch'>;
}

/** What a message that comes back is known by. */
type Address = Pick<Message, 'id' | 'destination' | 'routingKey'>;

/** Of so many is it remembered that they were given up: for a return of theirs, which should never come. */
const MAX_GIVEN_UP = 1_000;

const CLOSED: Outcome = Object.freeze({
  kind: 'unknown',
  code: 'channel-closed',
  reason: 'the channel is closed',
});

const NACKED: Outcome = Object.freeze({
  kind: 'unknown',
  code: 'nack',
  reason: 'RabbitMQ could not take responsibility for the message (a full queue, or an error of its own)',
});

const AMBIGUOUS: Outcome = Object.freeze({
  kind: 'unknown',
  code: 'return-ambiguous',
  reason: 'a message with the same id and routing key came back at the same time',
});

/** One confirm channel and what is outstanding on it, by delivery tag. */
export class ConfirmWindow {
  private readonly writer: Wire['writer'];
  private readonly channel: number;
  private readonly events: ConfirmWindowEvents;
  private readonly unconfirmed = new Unconfirmed<Entry>();
  /** The highest that was answered. */
  private answeredTag = 0;
  private readonly givenUp: Address[] = [];
  private closed = false;
  private closeError: Error | undefined;

  constructor(channel: ConfirmChannel, { writer, reader }: Wire, events: ConfirmWindowEvents) {
    this.writer = writer;
    this.channel = numberOf(channel);
    this.events = events;
    const unwatch = reader.watch(this.channel, (tag, multiple, ack) =>
      this.confirmed(tag, multiple, ack ? DURABLE : NACKED),
    );
    channel.on('return', (message: AmqpMessage) => this.returned(message));
    channel.on('error', (error) => (this.closeError = error));
    channel.on('close', () => {
      this.closed = true;
      unwatch();
      if (this.closeError !== undefined) events.onClosed(this.closeError);
    });
  }

  get size(): number {
    return this.unconfirmed.size;
  }

  get oldest(): Entry | undefined {
    return this.unconfirmed.oldest;
  }

  /**
   * Takes the entry for the writer's next flush, or returns why it can't be sent. The entry is outstanding only when this
   * returns undefined.
   */
  send(entry: Entry): Outcome | undefined {
    if (this.closed) return CLOSED;
    try {
      this.writer.put(this.channel, entry.message);
    } catch (error) {
      return refused('not-encodable', `AMQP can't carry this message: ${messageOf(error)}`);
    }
    this.unconfirmed.push(entry);
    return undefined;
  }

  /** Everything that is outstanding, in the order of sending. */
  all(): Entry[] {
    return [...this.unconfirmed];
  }

  /** Takes everything that is outstanding out, in the order of sending. */
  takeAll(): Entry[] {
    const entries = this.all();
    this.unconfirmed.clear();
    return entries;
  }

  /**
   * Gives up what is late although something that was sent after it has been answered: the broker and the way to it
   * work, a queue does not. An answer that still comes finds nothing under its tag.
   */
  takePassed(isLate: (entry: Entry) => boolean): Entry[] {
    const passed: Entry[] = [];
    while (this.unconfirmed.oldestTag < this.answeredTag) {
      const { oldest } = this.unconfirmed;
      if (oldest === undefined || !isLate(oldest)) break;
      this.unconfirmed.take(this.unconfirmed.oldestTag);
      passed.push(oldest);
      this.remember(oldest.message);
    }
    return passed;
  }

  /** Without its payload, which may be large, and for a while. */
  private remember({ id, destination, routingKey }: Message): void {
    this.givenUp.push({ id, destination, routingKey });
    if (this.givenUp.length > MAX_GIVEN_UP) this.givenUp.shift();
  }

  private confirmed(tag: number, multiple: boolean, outcome: Outcome): void {
    if (tag > this.answeredTag) this.answeredTag = tag;
    if (!multiple) return this.settle(this.unconfirmed.take(tag), outcome);
    while (this.unconfirmed.size > 0 && this.unconfirmed.oldestTag <= tag)
      this.settle(this.unconfirmed.take(this.unconfirmed.oldestTag), outcome);
  }

  private settle(entry: Entry | undefined, outcome: Outcome): void {
    if (entry !== undefined) this.events.settle(entry, entry.verdict ?? outcome);
  }

  /**
   * An unroutable message comes back before its acknowledgement, and carries no delivery tag. Ids need not be unique:
   * when several outstanding messages could be the one, none of them may count as durable, for a binding can come or
   * go between them. A return that fits nothing could be any of them.
   *
   * One that was given up comes back no more: RabbitMQ handles the messages of a channel one after the other and returns
   * one while it handles it, but did so in old versions also when a queue's process had ended. Such a return is nobody
   * else's, and no proof against a message that looks the same.
   */
  private returned(returned: AmqpMessage): void {
    const { exchange, routingKey } = returned.fields;
    const { replyText } = returned.fields as { replyText?: string };
    const outcome: Outcome = {
      kind: 'rejected',
      code: 'unroutable',
      reason: `exchange "${exchange}" has no queue for routing key "${routingKey}" (${replyText ?? 'NO_ROUTE'})`,
      permanent: false,
      scope: 'event',
      missingDestination: true,
    };
    const id: unknown = returned.properties.messageId;
    const fits = (address: Address): boolean =>
      address.id === id && address.destination === exchange && address.routingKey === routingKey;
    const late = this.givenUp.some(fits);
    const candidates = this.outstanding((entry) => fits(entry.message));
    if (candidates.length === 0 && late) return;
    if (candidates.length === 0) candidates.push(...this.unconfirmed);
    const first = candidates.find((entry) => entry.verdict === undefined || entry.verdict === AMBIGUOUS);
    for (const entry of candidates) entry.verdict ??= AMBIGUOUS;
    if (first !== undefined && !late) first.verdict = outcome;
  }

  private outstanding(fits: (entry: Entry) => boolean): Entry[] {
    const found: Entry[] = [];
    for (const entry of this.unconfirmed) if (fits(entry)) found.push(entry);
    return found;
  }
}
