import type { ConfirmChannel, Message as AmqpMessage } from 'amqplib';
import type { Message } from '../../envelope/message.ts';
import { DURABLE } from '../publisher.ts';
import type { OnOutcome, Outcome } from '../publisher.ts';
import { textOf } from './errors.ts';
import { bodyOf, publishOptions, refused } from './properties.ts';

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
  readonly onDrain: () => void;
  /** The broker closed this channel; not called when the whole connection ends. */
  readonly onClosed: (error: Error) => void;
}

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
  /** False after the write buffer was found full, until `onDrain`. */
  writable = true;
  private readonly channel: ConfirmChannel;
  private readonly events: ConfirmWindowEvents;
  private readonly unconfirmed = new Map<number, Entry>();
  private nextTag = 1;
  private closeError: Error | undefined;

  constructor(channel: ConfirmChannel, events: ConfirmWindowEvents) {
    this.channel = channel;
    this.events = events;
    // The library's own callback for each message costs a closure; its events carry the same.
    channel.on('ack', (fields) => this.confirmed(fields.deliveryTag, fields.multiple, DURABLE));
    channel.on('nack', (fields) => this.confirmed(fields.deliveryTag, fields.multiple, NACKED));
    channel.on('return', (message: AmqpMessage) => this.returned(message));
    channel.on('drain', () => {
      this.writable = true;
      events.onDrain();
    });
    channel.on('error', (error) => (this.closeError = error));
    channel.on('close', () => {
      if (this.closeError !== undefined) events.onClosed(this.closeError);
    });
  }

  get size(): number {
    return this.unconfirmed.size;
  }

  /** When the oldest outstanding message was sent. */
  get oldestSentAtMs(): number | undefined {
    return this.unconfirmed.values().next().value?.sentAtMs;
  }

  /** Sends, or returns why it can't be sent. The entry is outstanding only when this returns undefined. */
  send(entry: Entry): Outcome | undefined {
    const { message } = entry;
    try {
      this.writable =
        this.channel.publish(
          message.destination,
          message.routingKey,
          bodyOf(message),
          publishOptions(message),
        ) && this.writable;
    } catch (error) {
      // The encoder throws before it writes the first byte and before a tag is drawn. A channel that has just ended
      // throws as well, but says so by its own error class.
      if (error instanceof Error && error.name === 'IllegalOperationError') {
        return { kind: 'unknown', code: 'channel-closed', reason: textOf(error) };
      }
      return refused('not-encodable', `AMQP can't carry this message: ${textOf(error)}`);
    }
    this.unconfirmed.set(this.nextTag++, entry);
    return undefined;
  }

  /** Takes everything that is outstanding out, in the order of sending. */
  takeAll(): Entry[] {
    const entries = [...this.unconfirmed.values()];
    this.unconfirmed.clear();
    return entries;
  }

  private confirmed(tag: number, multiple: boolean, outcome: Outcome): void {
    if (!multiple) return this.settle(tag, this.unconfirmed.get(tag), outcome);
    for (const [each, entry] of this.unconfirmed) {
      if (each > tag) return;
      this.settle(each, entry, outcome);
    }
  }

  private settle(tag: number, entry: Entry | undefined, outcome: Outcome): void {
    if (entry === undefined) return;
    this.unconfirmed.delete(tag);
    this.events.settle(entry, entry.verdict ?? outcome);
  }

  /**
   * An unroutable message comes back before its acknowledgement, and carries no delivery tag. Ids need not be unique:
   * when several outstanding messages could be the one, none of them may count as durable, for a binding can come or
   * go between them. A return that fits nothing could be any of them.
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
    const candidates = this.candidates(returned.properties.messageId as unknown, exchange, routingKey);
    const first = candidates.find((entry) => entry.verdict === undefined || entry.verdict === AMBIGUOUS);
    for (const entry of candidates) entry.verdict ??= AMBIGUOUS;
    if (first !== undefined) first.verdict = outcome;
  }

  private candidates(id: unknown, exchange: string, routingKey: string): Entry[] {
    const found: Entry[] = [];
    for (const entry of this.unconfirmed.values()) {
      const { message } = entry;
      if (message.id === id && message.destination === exchange && message.routingKey === routingKey)
        found.push(entry);
    }
    return found.length > 0 ? found : [...this.unconfirmed.values()];
  }
}
