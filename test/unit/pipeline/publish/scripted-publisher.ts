import type { Message } from '../../../../src/pipeline/envelope/message.ts';
import {
  DURABLE,
  type OnOutcome,
  type Outcome,
  type Publisher,
} from '../../../../src/pipeline/publish/publisher.ts';

/** A publisher whose answers and room the test decides. */
export class ScriptedPublisher implements Publisher {
  readonly laneLimit = { events: 10, bytes: 1_000_000 };
  readonly maxPublishBytes = 1_000_000;
  /** What each call of `publish` brought. */
  readonly calls: number[][] = [];
  /** undefined: the answer comes when the test calls `answerAll`. */
  answerAtOnce: ((message: Message) => Outcome) | undefined;
  roomLeft = 1_000;
  private readonly unanswered: (readonly [Message, OnOutcome])[] = [];

  connect(): Promise<void> {
    return Promise.resolve();
  }

  laneOf({ key }: Message): string {
    return String(key);
  }

  room(): number {
    return this.roomLeft;
  }

  publish(messages: readonly Message[], onOutcome: OnOutcome): void {
    this.calls.push(messages.map(({ event }) => event.seq));
    for (const message of messages) {
      if (this.answerAtOnce) onOutcome(message, this.answerAtOnce(message));
      else this.unanswered.push([message, onOutcome]);
    }
  }

  answerAll(outcome: Outcome = DURABLE): void {
    for (const [message, onOutcome] of this.unanswered.splice(0)) onOutcome(message, outcome);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
