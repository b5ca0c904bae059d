import { faultPoint } from '../../lifecycle/fault-point.ts';
import type { Message } from '../envelope/message.ts';

/**
 * What a broker said about one message.
 *
 * - `durable`: confirmed at the strength configured, and routed. Nothing less counts.
 * - `rejected`: the broker answered that it will not take it. `scope: 'group'` means the answer was about several
 *   messages together, so that the culprit must be found by sending less at once. `permanent`: sending the same
 *   again can't help (too large); otherwise it may pass (a topic or a binding that appears late).
 * - `unknown`: no answer, a late one, a lost connection, a transient refusal. It is sent again, for ever.
 */
export type Outcome =
  | { readonly kind: 'durable' }
  | {
      readonly kind: 'rejected';
      readonly code: string;
      readonly reason: string;
      readonly permanent: boolean;
      readonly scope: 'event' | 'group';
      /** The destination does not exist (yet): retried for TOPIC_GRACE_MS instead of MAX_ATTEMPTS. */
      readonly missingDestination?: boolean;
    }
  | { readonly kind: 'unknown'; readonly code: string; readonly reason: string };

export const DURABLE: Outcome = Object.freeze({ kind: 'durable' });

/** What `mayStart` refused: nothing of it was written. */
export const LEASE_ENDED: Outcome = Object.freeze({
  kind: 'unknown',
  code: 'lease-ended',
  reason: 'The lease ended before the message was sent.',
});

/** Called exactly once for every message handed to `publish`, in any order, also after a failure. */
export type OnOutcome = (message: Message, outcome: Outcome) => void;

/**
 * The contract of every broker, proven by one test suite that runs against each of them.
 *
 * Messages of one lane are handed over in order. At most `laneLimit` of one lane are outstanding at a time, and those
 * of one `publish` call must become durable all together or not at all, or in order (Kafka: one record batch of one
 * partition; RabbitMQ can't promise it, so its limit is one event). A lane is only sent again after its last outcome.
 */
export interface Publisher {
  /** Limits of what one lane may have outstanding. */
  readonly laneLimit: { readonly events: number; readonly bytes: number };
  /**
   * Connects, or throws a classified error (`errors/`). Resolves at once when connected. A publisher that loses its
   * connection later answers `unknown` for what is outstanding, reconnects by itself with the shared back-off, and
   * has `room() === 0` meanwhile; an error that needs a person goes to `onFatal`.
   */
  connect(signal: AbortSignal): Promise<void>;
  /**
   * This process leads from now on. `name` is that of all processes that may lead for this outbox, and of no others. Where the
   * broker can refuse what an earlier leader still sends, it does from now on; whoever is refused that way gets `onFatal`
   * with the code `fenced` and the consequence `retry`: it leads no longer. Without a name nothing is refused. Absent: no
   * broker of this kind can.
   */
  lead?(name: string | undefined): void;
  /**
   * Identifies the lane whose order must be kept (Kafka: topic and partition; RabbitMQ: the ordering key).
   * `undefined`: not known yet (Kafka: a topic that was never asked for, or is missing). Such a message may be published,
   * but later ones of its destination must wait behind it: their lane is known once it is.
   */
  laneOf(message: Message): string | undefined;
  /**
   * A number that changes when the same message would get another lane (Kafka: how many partitions the topic has).
   * Messages of a new layout wait until those of the old one are gone. Absent: lanes never change.
   */
  layoutOf?(destination: string): number | undefined;
  /** How many messages may be handed over now; 0 while busy, blocked by the broker or not connected. */
  room(): number;
  /** How many bytes one `publish` call should carry at most. */
  readonly maxPublishBytes: number;
  /** Never throws, never rejects. At most `room()` messages. */
  publish(messages: readonly Message[], onOutcome: OnOutcome): void;
  /** Waits for outstanding outcomes no longer than `deadlineMs`, reports the rest as unknown, closes every socket. Idempotent. */
  close(deadlineMs: number): Promise<void>;
}

/** What a publisher is given besides its own configuration. */
export interface PublisherEvents {
  /** `room()` became greater than 0. */
  readonly onRoom: () => void;
  /** An error of class `stop` (credentials refused …): the relay halts. Or `fenced`, see `lead`. The publisher keeps its state and may be closed. */
  readonly onFatal: (error: Error) => void;
  /** The connection to the broker came (true) or went (false); for `/status`, metrics and the log. */
  readonly onConnection: (connected: boolean, reason: string) => void;
  /** Something that the operator should know and nothing waits for; for the log. Said once. */
  readonly onNotice?: (message: string) => void;
  /**
   * Asked right before messages are written, also those that have waited inside the publisher. False: this process leads
   * no longer; nothing is written, and the outcome is `LEASE_ENDED`. Absent: always true.
   */
  readonly mayStart?: () => boolean;
}

/** The last moment before messages are written: may they be? */
export function mayWrite(events: Pick<PublisherEvents, 'mayStart'>): boolean {
  if (events.mayStart?.() === false) return false;
  faultPoint('after-lease-check');
  return true;
}
