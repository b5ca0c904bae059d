import { isUtf8 } from 'node:buffer';
import type { Writable } from 'node:stream';
import { RelayError } from '../../../errors/errors.ts';
import { messageOf } from '../../../errors/thrown.ts';
import { viewOf } from '../../capture/byte-range.ts';
import type { Message } from '../../envelope/message.ts';
import { DURABLE, LEASE_ENDED, mayWrite } from '../publisher.ts';
import { RoomNotice } from '../room-notice.ts';
import { Unanswered } from '../unanswered.ts';
import type { OnOutcome, Outcome, Publisher, PublisherEvents } from '../publisher.ts';

/** Lines that may wait for the reader at a time. */
const WINDOW = 1000;
const MAX_PUBLISH_BYTES = 1024 * 1024;

/**
 * One JSON object a line. `payload` is a string with the bytes as stored: JSON is embedded as text, for printing it
 * again would change large numbers. Bytes that are not UTF-8 become base64, with `"encoding": "base64"`; NULL is null.
 */
export function formatLine(message: Message): string {
  const body = viewOf(message.body);
  const text = body === null || isUtf8(body);
  return `${JSON.stringify({
    id: message.id,
    destination: message.destination,
    key: message.key,
    type: message.type,
    contentType: message.contentType,
    timestamp: new Date(message.timestampMs).toISOString(),
    headers: message.headers ?? {},
    payload: body === null ? null : body.toString(text ? 'utf8' : 'base64'),
    ...(text ? {} : { encoding: 'base64' }),
  })}\n`;
}

/** Durable means: the operating system, or the stream given, has taken the line. */
export function createStdoutPublisher(stream: Writable, events: PublisherEvents): Publisher {
  return new StdoutPublisher(stream, events);
}

class StdoutPublisher implements Publisher {
  // A stream keeps the order and fails for good: what follows a lost line is lost as well.
  readonly laneLimit = { events: WINDOW, bytes: MAX_PUBLISH_BYTES };
  readonly maxPublishBytes = MAX_PUBLISH_BYTES;
  private readonly stream: Writable;
  private readonly events: PublisherEvents;
  /** Batches whose write has no answer yet. */
  private readonly batches = new Set<Batch>();
  private readonly unanswered = new Unanswered();
  private connected = false;
  private full = false;
  private readonly notice: RoomNotice;
  private closing: Promise<void> | undefined;

  constructor(stream: Writable, events: PublisherEvents) {
    this.stream = stream;
    this.events = events;
    this.notice = new RoomNotice(
      () => this.freeSlots(),
      () => events.onRoom(),
    );
  }

  async connect(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.connected) return;
    if (this.closing !== undefined || !this.stream.writable) throw closedError('it is not writable');
    this.connected = true;
    this.full = this.stream.writableNeedDrain;
    this.stream.on('error', this.onError);
    this.stream.on('close', this.onClose);
    this.stream.on('drain', this.onDrain);
    this.events.onConnection(true, 'stdout');
    this.notice.changed();
  }

  laneOf(message: Message): string {
    return message.key ?? message.id;
  }

  room(): number {
    return this.notice.look();
  }

  publish(messages: readonly Message[], onOutcome: OnOutcome): void {
    if (messages.length === 0) return;
    const batch: Batch = { messages, onOutcome };
    this.batches.add(batch);
    this.unanswered.add(messages.length);
    const { lines, refused } = format(messages);
    if (!mayWrite(this.events)) {
      process.nextTick(() => this.settle(batch, () => LEASE_ENDED));
      return;
    }
    // One write a batch: its callback, never called from inside `write`, answers for all of its lines.
    const accepted =
      this.connected && this.stream.writable
        ? this.stream.write(lines, (error) => this.written(batch, error, refused))
        : process.nextTick(() => this.written(batch, closedError('it is closed'), refused));
    if (accepted === false) this.full = true;
    this.notice.look();
  }

  async close(deadlineMs: number): Promise<void> {
    this.closing ??= this.shutDown(deadlineMs);
    await this.closing;
  }

  private freeSlots(): number {
    if (!this.connected || this.full || this.closing !== undefined) return 0;
    return Math.max(0, WINDOW - this.unanswered.count);
  }

  private written(
    batch: Batch,
    error: Error | null | undefined,
    refused: ReadonlyMap<Message, Outcome>,
  ): void {
    this.settle(batch, (message) => refused.get(message) ?? (error ? unknown(error) : DURABLE));
  }

  private settle(batch: Batch, outcomeOf: (message: Message) => Outcome): void {
    if (!this.batches.delete(batch)) return;
    this.unanswered.answered(batch.messages.length);
    for (const message of batch.messages) batch.onOutcome(message, outcomeOf(message));
    this.notice.changed();
  }

  private readonly onDrain = (): void => {
    this.full = false;
    this.notice.changed();
  };

  /** EPIPE: the reader is gone, and with it the only place to publish to. */
  private readonly onError = (error: Error): void => this.lost(error.message, error);

  private readonly onClose = (): void => this.lost('it was closed');

  private lost(reason: string, cause?: Error): void {
    if (!this.connected) return;
    this.connected = false;
    this.failAll(closedError(reason, cause));
    this.events.onConnection(false, reason);
    if (this.closing === undefined) this.events.onFatal(closedError(reason, cause));
  }

  private failAll(error: Error): void {
    for (const batch of this.batches) this.settle(batch, () => unknown(error));
  }

  /** The stream belongs to the process and stays open. */
  private async shutDown(deadlineMs: number): Promise<void> {
    await this.unanswered.none(deadlineMs);
    const late = this.unanswered.count > 0;
    this.failAll(closedError('closed before the line was written'));
    this.connected = false;
    this.notice.close();
    this.stream.off('close', this.onClose);
    this.stream.off('drain', this.onDrain);
    // A write that is still under way may fail later; without any listener its error would end the process.
    if (!late) this.stream.off('error', this.onError);
  }
}

interface Batch {
  readonly messages: readonly Message[];
  readonly onOutcome: OnOutcome;
}

/** A time that no calendar has must not take the whole batch with it. */
function format(messages: readonly Message[]): { lines: string; refused: ReadonlyMap<Message, Outcome> } {
  let lines = '';
  const refused = new Map<Message, Outcome>();
  for (const message of messages) {
    try {
      lines += formatLine(message);
    } catch (error) {
      const reason = messageOf(error);
      refused.set(message, {
        kind: 'rejected',
        code: 'not-encodable',
        reason,
        permanent: true,
        scope: 'event',
      });
    }
  }
  return { lines, refused };
}

function unknown(error: Error): Outcome {
  return { kind: 'unknown', code: 'stdout-closed', reason: error.message };
}

function closedError(reason: string, cause?: Error): RelayError {
  return new RelayError('stop', 'stdout-closed', `standard output: ${reason}`, {
    advice: 'Keep the reader of the output running; start the relay again together with it.',
    ...(cause === undefined ? {} : { cause }),
  });
}
