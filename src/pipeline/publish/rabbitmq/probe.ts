import type { ConfirmChannel } from 'amqplib';
import type { Message } from '../../envelope/message.ts';
import { LEASE_ENDED, type Outcome } from '../publisher.ts';
import { ConfirmWindow } from './confirm-window.ts';
import type { Entry, Wire } from './confirm-window.ts';
import { blameOf, culpritOutcome, lostOutcome } from './errors.ts';
import type { Blame } from './errors.ts';
import type { FrameWriter } from './frame-writer.ts';

export interface ProbeOptions {
  readonly open: () => Promise<ConfirmChannel>;
  readonly wire: Wire & { readonly writer: Pick<FrameWriter, 'flush'> };
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
  readonly mayWrite: () => boolean;
  readonly settle: (entry: Entry, outcome: Outcome) => void;
  /** The broker closed the channel because of this message. */
  readonly onBlame: (blame: Blame, message: Message) => void;
}

/** Sends suspects one at a time on a channel of their own: when it is closed, there is no doubt whose fault it is. */
export class Probe {
  private readonly options: ProbeOptions;
  private readonly queue: Entry[] = [];
  private current: Entry | undefined;
  private window: ConfirmWindow | undefined;
  private ended = false;

  constructor(options: ProbeOptions) {
    this.options = options;
  }

  push(entry: Entry): void {
    this.queue.push(entry);
    if (this.current === undefined) void this.next();
  }

  /** What the broker has been sent, or the channel is being opened for. */
  get sent(): Entry | undefined {
    return this.current;
  }

  /** Takes out everything; nothing is sent afterwards. */
  takeAll(): Entry[] {
    this.ended = true;
    const entries = this.current === undefined ? [] : [this.current];
    entries.push(...this.queue.splice(0));
    this.current = undefined;
    return entries;
  }

  private async next(): Promise<void> {
    const entry = this.queue.shift();
    this.current = entry;
    if (entry === undefined || this.ended) return;
    entry.sentAtMs = this.options.now();
    try {
      this.window ??= this.watch(await this.options.open());
    } catch (error) {
      if (this.current === entry) this.settle(entry, lostOutcome(error));
      return;
    }
    // The connection may have ended while the channel was opened.
    if (this.current !== entry) return;
    const refusal = this.options.mayWrite() ? this.window.send(entry) : LEASE_ENDED;
    this.options.wire.writer.flush();
    if (refusal === undefined) return;
    // Not from inside `push`.
    queueMicrotask(() => {
      if (this.current === entry) this.settle(entry, refusal);
    });
  }

  private watch(channel: ConfirmChannel): ConfirmWindow {
    return new ConfirmWindow(channel, this.options.wire, {
      settle: (entry, outcome) => this.settle(entry, outcome),
      onClosed: (error) => {
        this.window = undefined;
        const entry = this.current;
        if (entry === undefined) return;
        this.options.onBlame(blameOf(error), entry.message);
        this.settle(entry, culpritOutcome(error));
      },
    });
  }

  private settle(entry: Entry, outcome: Outcome): void {
    this.current = undefined;
    this.options.settle(entry, outcome);
    if (this.current === undefined && !this.ended) void this.next();
  }
}
