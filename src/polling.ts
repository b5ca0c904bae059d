import type { Observer } from './observe/observer.ts';
import { RelayError } from './errors/errors.ts';
import type { MadeSlot } from './pipeline/capture/handover.ts';
import { TablePoll } from './pipeline/capture/polling/table-poll.ts';
import { listenForWakeUps } from './pipeline/capture/polling/wake-up.ts';
import { BEFORE_ALL } from './pipeline/capture/polling/table-reader.ts';
import { toRuns, type Identity, type Run } from './pipeline/settle/settled-runs.ts';
import { BEYOND_EVERYTHING, Settlement, type Write } from './pipeline/settle/settlement.ts';
import { parseSnapshot, sees } from './postgres/snapshot.ts';
import { Stage, type StageEnd, type StageOptions } from './stage.ts';
import { pause } from './lifecycle/wait.ts';

export interface PollingOptions extends Omit<
  StageOptions,
  'source' | 'settlement' | 'phase' | 'slotCreatedLsn' | 'finish' | 'onWritten'
> {
  /** Makes the slot to stream from afterwards, or throws why not; undefined: the table is polled until the stop. */
  readonly makeSlot: ((signal: AbortSignal) => Promise<MadeSlot>) | undefined;
  /** Delivered by the stream, and their rows are not visible yet: they are removed once they are, and not sent. */
  readonly unseen: readonly Identity[];
  /** Streaming was tried just now. */
  readonly failedBefore: boolean;
  readonly onSlotFailure: (error: unknown) => void;
  /** A slot was made, and is not streamed from. */
  readonly onSlotUnused: () => Promise<void>;
  readonly runStage: (stage: Stage) => Promise<StageEnd>;
}

export interface Polled {
  readonly made: MadeSlot;
  /** Settled by polling and not visible to the slot's snapshot: the stream will bring them again. */
  readonly beyond: readonly Run[];
}

/** After a slot could not be made, or streaming can't work at all, it is tried again so much later. */
const TRY_AGAIN_MS = 30_000;
const CAUGHT_UP_LOOK_MS = 50;
/** Under a steady load that polling never gets through, the slot is made all the same, if the broker takes events. */
const CAUGHT_UP_PATIENCE_MS = 60_000;
const WORKING_MS = 5_000;
/** A commit may be in the log before the slot began, and be visible only so much later, also behind a standby. */
const VISIBLE_MS = 1_000;
/** Until all that was polled beside an inexact slot is settled, or else the slot is made again. */
const HANDOVER_DEADLINE_MS = 30_000;
/** Events settled while the slot is made are remembered one by one; with more than this it is tried again later. */
const MAX_REMEMBERED = 500_000;

/**
 * Delivers from the table while a slot is being made, which can take as long as the longest transaction; or while
 * streaming can't work. Resolves with the slot once the last polled event is settled and written, with undefined at a
 * stop. Rejects with what ended the stage.
 */
export async function pollTable(options: PollingOptions): Promise<Polled | undefined> {
  return await new Polling(options).run();
}

class Polling {
  private readonly options: PollingOptions;
  private readonly source: TablePoll;
  private readonly stage: Stage;
  private readonly begunMs = performance.now();
  private writtenMs = 0;
  /** Settled since the slot was begun. */
  private remembered: Identity[] | undefined;
  private giveUpSlot = new AbortController();
  /** What was polled beside an inexact slot was not settled in time. */
  private late = false;
  /** Ends the stage: there is a slot. */
  private readonly finish = new AbortController();
  /** The stage has ended. */
  private readonly over = new AbortController();
  private readonly ending: AbortSignal;

  constructor(options: PollingOptions) {
    this.options = options;
    this.ending = AbortSignal.any([this.over.signal, options.stop]);
    const { config, client, store, unseen } = options;
    this.source = new TablePoll({ config, client, flush: () => store.touch(client) });
    this.stage = new Stage({
      ...options,
      source: this.source,
      settlement: new Settlement({
        position: BigInt(BEFORE_ALL),
        before: toRuns(unseen),
        beforeUntil: BEYOND_EVERYTHING,
        unseen,
      }),
      phase: 'polling',
      slotCreatedLsn: 0n,
      finish: this.finish.signal,
      onWritten: (write) => this.written(write),
    });
  }

  async run(): Promise<Polled | undefined> {
    const { options } = this;
    const listening = this.listen();
    const preparing = this.prepare().finally(() => this.finish.abort());
    let ended = false;
    try {
      await options.runStage(this.stage);
      ended = !options.stop.aborted && !this.late;
    } finally {
      this.over.abort();
      await listening;
      const left = await preparing;
      if (left && !ended) await options.onSlotUnused();
    }
    const made = await preparing;
    if (this.late) throw handoverLate();
    if (!made || !ended) return undefined;
    return { made, beyond: this.broughtAgain(made) };
  }

  private written({ settled, retried }: Write): void {
    if (settled.length > 0) this.writtenMs = performance.now();
    this.source.removed([...settled.map(({ event }) => event), ...retried]);
    if (!this.remembered) return;
    for (const { event } of settled) this.remembered.push({ seq: event.seq, xid: event.xid });
    if (this.remembered.length > MAX_REMEMBERED) this.giveUpSlot.abort(new Error('it takes too long'));
  }

  private async listen(): Promise<void> {
    const { config, observer } = this.options;
    const channel = config.notifyChannel;
    if (channel === undefined) return;
    await listenForWakeUps(
      { config, channel, wake: () => this.source.wake(), onUseless: () => tellUseless(observer) },
      this.over.signal,
    );
  }

  /** Tries until a slot is made or the stage is over. */
  private async prepare(): Promise<MadeSlot | undefined> {
    const { makeSlot, failedBefore } = this.options;
    if (failedBefore) await this.rest(TRY_AGAIN_MS);
    while (!this.ending.aborted) {
      if (!makeSlot) await this.rest(TRY_AGAIN_MS);
      else if (!this.timeToBegin()) await this.rest(CAUGHT_UP_LOOK_MS);
      else {
        const slot = await this.attempt(makeSlot);
        if (slot?.exact === false) await this.deliverWhatCameBefore();
        if (slot) return slot;
        await this.rest(TRY_AGAIN_MS);
      }
    }
    return undefined;
  }

  /** A slot keeps the log from its beginning: with a backlog, or with the broker away, none is begun. */
  private timeToBegin(): boolean {
    if (this.source.caughtUp && !this.stage.giants.active) return true;
    const nowMs = performance.now();
    return nowMs - this.begunMs > CAUGHT_UP_PATIENCE_MS && nowMs - this.writtenMs < WORKING_MS;
  }

  private async attempt(make: (signal: AbortSignal) => Promise<MadeSlot>): Promise<MadeSlot | undefined> {
    this.giveUpSlot = new AbortController();
    this.remembered = [];
    try {
      return await make(AbortSignal.any([this.ending, this.giveUpSlot.signal]));
    } catch (error) {
      this.remembered = undefined;
      if (!this.ending.aborted) this.options.onSlotFailure(error);
      return undefined;
    }
  }

  /**
   * Nothing tells what was committed before the slot began. Once a look that began later is delivered whole, all of it
   * is; and what the stream will bring again was settled since the slot was begun, and is remembered.
   */
  private async deliverWhatCameBefore(): Promise<void> {
    const { source, ending } = this;
    const madeMs = performance.now();
    const lateMs = madeMs + HANDOVER_DEADLINE_MS;
    while (source.completeLookBeganMs < madeMs + VISIBLE_MS && !ending.aborted && performance.now() < lateMs)
      await this.rest(CAUGHT_UP_LOOK_MS);
    source.end();
    // Until the stage has ended by itself.
    await this.rest(Math.max(0, lateMs - performance.now()));
    this.late = !ending.aborted;
  }

  /** What was settled beside the slot and is not in its snapshot; beside an inexact one, everything. */
  private broughtAgain({ exact, snapshot }: MadeSlot): Run[] {
    const seen = parseSnapshot(snapshot);
    return toRuns((this.remembered ?? []).filter(({ xid }) => !exact || !sees(seen, xid)));
  }

  private async rest(ms: number): Promise<void> {
    await pause(ms, this.ending);
  }
}

function tellUseless({ changes }: Observer): void {
  changes.report('wake-up', 'pooler', {
    level: 'warn',
    message: 'NOTIFY_CHANNEL has no effect through a pooler: the table is polled at its interval',
  });
}

function handoverLate(): RelayError {
  return new RelayError(
    'retry',
    'handover-late',
    'what was polled beside the new slot was not settled in time',
    {
      advice: 'The table is polled on, and the slot is made again; look at the broker when this repeats.',
    },
  );
}
