import type { Bytes } from '../capture/byte-range.ts';
import type { OutboxEvent } from '../capture/event.ts';

/** An event with its address and content, ready for any broker. The table of parts is the README's "What arrives". */
export interface Message {
  readonly event: OutboxEvent;
  /** Kafka: the topic. RabbitMQ: the exchange. */
  readonly destination: string;
  /** Events with the same key are delivered in commit order. `null`: no order asked for. */
  readonly key: string | null;
  /** RabbitMQ only; equals `key` unless a routing key of its own is configured. */
  readonly routingKey: string;
  /** Stable message id: the same on every delivery of this event. */
  readonly id: string;
  readonly type: string;
  readonly contentType: string;
  /** Time of the event, milliseconds since the epoch. */
  readonly timestampMs: number;
  /** The row's own headers: values are strings, never null. `undefined` when there are none. */
  readonly headers: Readonly<Record<string, string>> | undefined;
  /** Payload bytes as stored; `null` when the payload is NULL. */
  readonly body: Bytes | null;
  /** Upper estimate of what this message costs on the wire, bytes: body, key, headers. */
  readonly sizeBytes: number;
  /** Its place in a lane: set and read by `publish/` alone, which finds it again by this when the outcome comes. */
  delivery?: object | undefined;
}
