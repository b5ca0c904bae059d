import { setTimeout as sleep } from 'node:timers/promises';
import type { Observer } from './observe/observer.ts';
import { RelayError } from './errors/errors.ts';
import type { MadeSlot } from './pipeline/capture/handover.ts';
import { TablePoll } from './pipeline/capture/polling/table-poll.ts';
import { listenForWakeUps } from './pipeline/capture/polling/wake-up.ts';
import { BEFORE_ALL } from './pipeline/capture/polling/table-reader.ts';
import { toRuns, type Identity, type Run } from './pipeline/settle/settled-runs.ts';
import { Settlement, type Write } from './pipeline/settle/settlement.ts';
import { parseSnapshot, sees } from './postgres/snapshot.ts';
import { Stage, type StageEnd, type StageOptions } from './stage.ts';

export interface PollingOptions extends Omit<
  StageOptions,
  'source' | 'settlement' | 'phase' | 'slotCreatedLsn' | 'finish' | 'onWritten'
> {
  /** Makes the slot to stream from afterwards, or throws why not; undefined: the table is polled until the stop. */
  readonly makeSlot: ((signal: AbortSignal) => Promise<MadeSlot>) | undefined;
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
 *
 * A slot keeps the log from the moment it is begun, so it is begun only when the backlog is gone: with the broker away
 * none is.
 */
export async function pollTable(options: PollingOptions): Promise<Polled | undefined> {
  const { config, client, store } = options;
  const finish = new AbortController();
  const over = new AbortController();
  const attempt = { settled: undefined as Identity[] | undefined, giveUp: new AbortController() };
  const begunMs = performance.now();
  let writtenMs = 0;
  const source = new TablePoll({ config, client, flush: () => store.touch(client) });
  const stage = new Stage({
    ...options,
    source,
    settlement: new Settlement({ position: BigInt(BEFORE_ALL), before: [], beforeUntil: 0n }),
    phase: 'polling',
    slotCreatedLsn: 0n,
    finish: finish.signal,
    onWritten: ({ settled }: Write) => {
      writtenMs = performance.now();
      source.removed(settled.map(({ event }) => event.seq));
      for (const { event } of settled) attempt.settled?.push({ seq: event.seq, xid: event.xid });
      if ((attempt.settled?.length ?? 0) > MAX_REMEMBERED)
        attempt.giveUp.abort(new Error('it takes too long'));
    },
  });
  const listening = listenMeanwhile();
  let late = false;
  const preparing = prepare().finally(() => finish.abort());
  let ended = false;
  try {
    await options.runStage(stage);
    ended = !options.stop.aborted && !late;
  } finally {
    over.abort();
    await listening;
    const left = await preparing;
    if (left && !ended) await options.onSlotUnused();
  }
  const made = await preparing;
  if (late) throw handoverLate();
  if (!made || !ended) return undefined;
  const snapshot = parseSnapshot(made.snapshot);
  const again = ({ xid }: Identity): boolean => !made.exact || !sees(snapshot, xid);
  return { made, beyond: toRuns((attempt.settled ?? []).filter(again)) };

  async function listenMeanwhile(): Promise<void> {
    const channel = config.notifyChannel;
    if (channel === undefined) return;
    await listenForWakeUps(
      { config, channel, wake: () => source.wake(), onUseless: () => tellUseless(options.observer) },
      over.signal,
    );
  }

  /** Tries until a slot is made or the stage is over. */
  async function prepare(): Promise<MadeSlot | undefined> {
    const ending = AbortSignal.any([over.signal, options.stop]);
    if (options.failedBefore) await rest(TRY_AGAIN_MS);
    while (!ending.aborted) {
      if (!options.makeSlot) await rest(TRY_AGAIN_MS);
      else if (!timeToBegin()) await rest(CAUGHT_UP_LOOK_MS);
      else {
        const slot = await attemptSlot(options.makeSlot, ending);
        if (slot?.exact === false) await deliverWhatCameBefore();
        if (slot) return slot;
        await rest(TRY_AGAIN_MS);
      }
    }
    return undefined;

    /**
     * Nothing tells what was committed before the slot began. Once a look that began later is delivered whole, all of it
     * is; and what the stream will bring again was settled since the slot was begun, and is remembered.
     */
    async function deliverWhatCameBefore(): Promise<void> {
      const madeMs = performance.now();
      const lateMs = madeMs + HANDOVER_DEADLINE_MS;
      while (
        source.completeLookBeganMs < madeMs + VISIBLE_MS &&
        !ending.aborted &&
        performance.now() < lateMs
      )
        await rest(CAUGHT_UP_LOOK_MS);
      source.end();
      // Until the stage has ended by itself.
      await rest(Math.max(0, lateMs - performance.now()));
      late = !ending.aborted;
    }

    async function rest(ms: number): Promise<void> {
      await sleep(ms, undefined, { signal: ending }).catch(() => undefined);
    }
  }

  function timeToBegin(): boolean {
    if (source.caughtUp && !stage.giants.active) return true;
    const nowMs = performance.now();
    return nowMs - begunMs > CAUGHT_UP_PATIENCE_MS && nowMs - writtenMs < WORKING_MS;
  }

  async function attemptSlot(
    make: (signal: AbortSignal) => Promise<MadeSlot>,
    ending: AbortSignal,
  ): Promise<MadeSlot | undefined> {
    attempt.giveUp = new AbortController();
    attempt.settled = [];
    try {
      return await make(AbortSignal.any([ending, attempt.giveUp.signal]));
    } catch (error) {
      attempt.settled = undefined;
      if (!ending.aborted) options.onSlotFailure(error);
      return undefined;
    }
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
