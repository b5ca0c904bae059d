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
  /** On so many channels at a time. */
  readonly width: () => number;
  /** Monotonic clock, milliseconds. */
  readonly now: () => number;
  readonly mayWrite: () => boolean;
  readonly settle: (entry: Entry, outcome: Outcome) => void;
  /** The broker closed the channel because of this message. */
  readonly onBlame: (blame: Blame, message: Message) => void;
}

/** One channel, and the message that is alone on it. */
interface Cell {
  current: Entry | undefined;
  window: ConfirmWindow | undefined;
}

/**
 * Sends messages one at a time on a channel of their own: when it is closed, or nothing comes back on it, there is no
 * doubt whose fault it is.
 */
export class Probe {
  private readonly options: ProbeOptions;
  private readonly queue: Entry[] = [];
  private readonly cells: Cell[] = [];
  private ended = false;

  constructor(options: ProbeOptions) {
    this.options = options;
  }

  push(entry: Entry): void {
    this.queue.push(entry);
    const cell = this.cells.find(({ current }) => current === undefined) ?? this.another();
    if (cell !== undefined) void this.next(cell);
  }

  /** What the broker has been sent, or a channel is being opened for. */
  get sent(): Entry[] {
    return this.cells.map(({ current }) => current).filter((entry) => entry !== undefined);
  }

  /** Takes out everything; nothing is sent afterwards. */
  takeAll(): Entry[] {
    this.ended = true;
    const entries = [...this.sent, ...this.queue.splice(0)];
    for (const cell of this.cells) cell.current = undefined;
    return entries;
  }

  private another(): Cell | undefined {
    if (this.cells.length >= this.options.width()) return undefined;
    const cell: Cell = { current: undefined, window: undefined };
    this.cells.push(cell);
    return cell;
  }

  private async next(cell: Cell): Promise<void> {
    if (this.ended || this.sent.length >= this.options.width()) return;
    const entry = this.queue.shift();
    cell.current = entry;
    if (entry === undefined) return;
    entry.sentAtMs = this.options.now();
    try {
      cell.window ??= this.watch(cell, await this.options.open());
    } catch (error) {
      if (cell.current === entry) this.settle(cell, lostOutcome(error));
      return;
    }
    // The connection may have ended while the channel was opened.
    if (cell.current !== entry) return;
    const refusal = this.options.mayWrite() ? cell.window.send(entry) : LEASE_ENDED;
    this.options.wire.writer.flush();
    if (refusal === undefined) return;
    // Not from inside `push`.
    queueMicrotask(() => {
      if (cell.current === entry) this.settle(cell, refusal);
    });
  }

  private watch(cell: Cell, channel: ConfirmChannel): ConfirmWindow {
    return new ConfirmWindow(channel, this.options.wire, {
      // Never of another than it is for: that would be a delivery that never was.
      settle: (entry, outcome) => {
        if (cell.current === entry) this.settle(cell, outcome);
      },
      onClosed: (error) => {
        cell.window = undefined;
        if (cell.current === undefined) return;
        this.options.onBlame(blameOf(error), cell.current.message);
        this.settle(cell, culpritOutcome(error));
      },
    });
  }

  private settle(cell: Cell, outcome: Outcome): void {
    const entry = cell.current;
    cell.current = undefined;
    if (entry !== undefined) this.options.settle(entry, outcome);
    if (cell.current === undefined) void this.next(cell);
  }
}
