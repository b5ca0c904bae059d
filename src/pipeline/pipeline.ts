import { faultPoint } from '../lifecycle/fault-point.ts';
import { orAborted, within } from '../lifecycle/wait.ts';
import type { OutboxEvent } from './capture/event.ts';
import type { Batch, Source } from './capture/source.ts';
import { isUnaddressable, type Address } from './envelope/router.ts';
import { Dispatcher, type DispatcherOptions } from './publish/dispatcher.ts';
import type { Verdict } from './publish/lanes.ts';
import type { Settled, Settlement } from './settle/settlement.ts';
import type { Settler } from './settle/settler.ts';
import { InFlightWindow, type WindowLimits } from './window.ts';

export interface PipelineOptions extends Omit<DispatcherOptions, 'onVerdicts'> {
  readonly source: Source;
  readonly address: Address;
  readonly settlement: Settlement;
  /** Where what is settled is entered: the settler, or who stands before it. */
  readonly books: Pick<Settler, 'add'>;
  readonly window: WindowLimits;
  readonly onDurable: (durable: readonly Durable[]) => void;
  readonly onParked: (settled: Settled) => void;
  readonly onSkipped: (count: number) => void;
}

/** So many windows of transactions are remembered behind one that is not settled, before reading is held back. */
const MAX_REMEMBERED_WINDOWS = 20;

export type Durable = Extract<Verdict, { kind: 'durable' }>;

/**
 * capture → envelope → publish → settle, from one source, until it ends.
 *
 * Invariant: a position is acknowledged only after everything at or below it is durable at the broker or parked, and
 * after the progress row says so.
 */
export class Pipeline {
  private readonly options: PipelineOptions;
  private readonly dispatcher: Dispatcher;
  readonly window: InFlightWindow;

  constructor(options: PipelineOptions) {
    this.options = options;
    this.window = new InFlightWindow(options.window);
    this.dispatcher = new Dispatcher({ ...options, onVerdicts: (verdicts) => this.settleVerdicts(verdicts) });
  }

  /** Reads to the end of the source and waits until all of it is settled, or stops reading when the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    for await (const batch of this.options.source.batches(signal)) {
      this.accept(batch);
      await this.window.room(signal, () => this.remembersTooMuch());
    }
    await orAborted(this.dispatcher.idle(), signal).catch(() => undefined);
  }

  /** Sends nothing more and waits for what the broker has. Resolves with how many sends have no known outcome. */
  async stop(deadlineMs: number): Promise<number> {
    this.dispatcher.stop();
    await within(this.dispatcher.idle(), deadlineMs, () => undefined);
    return this.dispatcher.unknown;
  }

  /** There may be room at the broker. */
  wake(): void {
    this.dispatcher.schedule();
  }

  /** Rows were removed, or marked: they no longer cost memory. */
  release(settled: readonly Settled[]): void {
    for (const { event } of settled) this.window.leave(event);
    this.window.changed();
  }

  /** Delivers events that no stream brought; they take no part in positions. */
  acceptOrphans(orphans: readonly OutboxEvent[]): void {
    for (const event of orphans) this.send(event);
  }

  private accept(batch: Batch): void {
    const { settlement, books, onSkipped } = this.options;
    settlement.begin(batch.transactions, batch.heardLsn);
    let skipped = 0;
    for (const event of batch.events) {
      if (settlement.settledBefore(event)) skipped++;
      else this.send(event);
    }
    if (skipped > 0) onSkipped(skipped);
    // A COMMIT whose events are settled already: nothing else would wake who notes it.
    if (settlement.hasUnnoted) books.add([]);
  }

  /**
   * One event that can't be delivered keeps all later transactions from being acknowledged, while they flow and leave the
   * window. What is remembered about them is small, but must not grow for hours. Of delivered events whose rows nobody can
   * see yet, because their commits wait for a standby, a kill repeats each: no more of them than a window.
   */
  private remembersTooMuch(): boolean {
    const { settlement, window } = this.options;
    return (
      settlement.openTransactions > window.maxEvents * MAX_REMEMBERED_WINDOWS ||
      settlement.unseenCount >= window.maxEvents
    );
  }

  private send(event: OutboxEvent): void {
    this.window.enter(event);
    const addressed = this.options.address(event);
    if (!isUnaddressable(addressed)) {
      this.dispatcher.add(addressed);
      return;
    }
    const { code, reason } = addressed;
    this.settle([{ event, parked: { code, reason, attempts: 0, destination: null, key: null } }]);
  }

  private settleVerdicts(verdicts: readonly Verdict[]): void {
    const durable = verdicts.filter((verdict) => verdict.kind === 'durable');
    if (durable.length > 0) this.options.onDurable(durable);
    this.settle(verdicts.map(toSettled));
  }

  private settle(settled: readonly Settled[]): void {
    const parked = settled.filter((item) => item.parked);
    for (const item of parked) this.options.onParked(item);
    if (parked.length > 0) faultPoint('after-park-decision');
    this.options.books.add(settled);
  }
}

function toSettled(verdict: Verdict): Settled {
  const { event, destination, key } = verdict.message;
  if (verdict.kind === 'durable') return { event };
  const { code, reason, attempts } = verdict;
  return { event, parked: { code, reason, attempts, destination, key } };
}
