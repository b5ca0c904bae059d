import { viewOf } from '../../src/pipeline/capture/byte-range.ts';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import {
  DURABLE,
  type OnOutcome,
  type Outcome,
  type Publisher,
  type PublisherEvents,
} from '../../src/pipeline/publish/publisher.ts';
import type { ReceivedMessage } from './judge.ts';

/** A broker in memory: takes everything, unless the test holds it back or answers otherwise. */
export class MemoryPublisher implements Publisher {
  readonly laneLimit = { events: 1_000, bytes: 1_000_000 };
  readonly maxPublishBytes = 1_000_000;
  readonly received: ReceivedMessage[] = [];
  /** Bodies as bytes, in the order of `received`. */
  readonly bodies: (Buffer | null)[] = [];
  /** `undefined`: no answer comes. */
  answer: (message: Message) => Outcome | undefined = () => DURABLE;
  private held = false;
  private events: PublisherEvents | undefined;

  attach(events: PublisherEvents): this {
    this.events = events;
    return this;
  }

  /** The broker is stuck: nothing more is taken. */
  hold(): void {
    this.held = true;
  }

  release(): void {
    this.held = false;
    this.events?.onRoom();
  }

  /** Payloads as text, in the order of their arrival. */
  get payloads(): (string | null)[] {
    return this.received.map(({ payload }) => payload);
  }

  async connect(): Promise<void> {
    this.events?.onConnection(true, 'memory');
    return await Promise.resolve();
  }

  laneOf(message: Message): string {
    return message.key ?? message.id;
  }

  room(): number {
    return this.held ? 0 : 1_000;
  }

  publish(messages: readonly Message[], onOutcome: OnOutcome): void {
    setImmediate(() => {
      for (const message of messages) {
        const outcome = this.answer(message);
        if (outcome === undefined) continue;
        if (outcome.kind === 'durable') {
          const { id, key } = message;
          const body = viewOf(message.body);
          this.received.push({ id, key, payload: body?.toString() ?? null });
          this.bodies.push(body);
        }
        onOutcome(message, outcome);
      }
      this.events?.onRoom();
    });
  }

  async close(): Promise<void> {
    return await Promise.resolve();
  }
}
