import { setTimeout as sleep } from 'node:timers/promises';
import type { MadeSlot } from './pipeline/capture/handover.ts';
import { TablePoll } from './pipeline/capture/polling/table-poll.ts';
import { BEFORE_ALL } from './pipeline/capture/polling/table-reader.ts';
import { toRuns, type Identity, type Run } from './pipeline/settle/settled-runs.ts';
import { Settlement, type Write } from './pipeline/settle/settlement.ts';
import { parseSnapshot, sees } from './postgres/snapshot.ts';
import { Stage, type StageEnd, type StageOptions } from './stage.ts';

export interface PollingOptions extends Omit<
  StageOptions,
  'source' | 'settlement' | 'phase' | 'slotCreatedLsn' | 'finish' | 'onWritten'
> {
  /** Makes the slot to stream from afterwards; undefined: streaming can't work, and is looked at again later. */
  readonly makeSlot: ((signal: AbortSignal) => Promise<MadeSlot>) | undefined;
  /** Polls until it is stopped. */
  readonly forEver: boolean;
  readonly onSlotFailure: (error: unknown) => void;
  readonly runStage: (stage: Stage) => Promise<StageEnd>;
}

export interface Polled {
  readonly made: MadeSlot;
  /** Settled by polling and not visible to the slot's snapshot: the stream will bring them again. */
  readonly beyond: readonly Run[];
}

/** After a slot could not be made, or streaming can't work at all, it is looked at again so much later. */
const LOOK_AGAIN_MS = 30_000;
const CAUGHT_UP_LOOK_MS = 50;

/**
 * Delivers from the table while a slot is being made, which can take as long as the longest transaction; or while
 * streaming can't work. Resolves with the slot once the last polled event is settled and written; with undefined when
 * it is time to look again, or at a stop. Rejects with what ended the stage.
 *
 * A slot keeps the log from the moment it is begun, so it is begun only when the backlog is gone: with the broker away
 * none is.
 */
export async function pollTable(options: PollingOptions): Promise<Polled | undefined> {
  const { config, client, store } = options;
  const finish = new AbortController();
  const over = new AbortController();
  let settledSince: Identity[] | undefined;
  const source = new TablePoll({ config, client, flush: () => store.touch(client) });
  const stage = new Stage({
    ...options,
    source,
    settlement: new Settlement({ position: BigInt(BEFORE_ALL), before: [], beforeUntil: 0n }),
    phase: 'polling',
    slotCreatedLsn: 0n,
    finish: finish.signal,
    onWritten: ({ settled }: Write) => {
      source.removed(settled.map(({ event }) => event.seq));
      for (const { event } of settled) settledSince?.push({ seq: event.seq, xid: event.xid });
    },
  });
  const preparing = prepare().finally(() => finish.abort());
  try {
    await options.runStage(stage);
  } finally {
    over.abort();
    await preparing;
  }
  const made = await preparing;
  if (!made || !settledSince || options.stop.aborted) return undefined;
  const snapshot = parseSnapshot(made.snapshot);
  return { made, beyond: toRuns(settledSince.filter(({ xid }) => !sees(snapshot, xid))) };

  async function prepare(): Promise<MadeSlot | undefined> {
    const { makeSlot, forEver } = options;
    if (!makeSlot) return await rest(forEver ? undefined : LOOK_AGAIN_MS);
    while (!source.caughtUp && !over.signal.aborted) await rest(CAUGHT_UP_LOOK_MS);
    if (over.signal.aborted) return undefined;
    settledSince = [];
    try {
      return await makeSlot(over.signal);
    } catch (error) {
      if (over.signal.aborted) return undefined;
      options.onSlotFailure(error);
      return await rest(LOOK_AGAIN_MS);
    }
  }

  /** Until the stage is over, at most so long. */
  async function rest(ms: number | undefined): Promise<undefined> {
    if (ms !== undefined) await sleep(ms, undefined, { signal: over.signal }).catch(() => undefined);
    else if (!over.signal.aborted) {
      await new Promise<void>((resolve) => {
        over.signal.addEventListener('abort', () => resolve(), { once: true });
      });
    }
  }
}
