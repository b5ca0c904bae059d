import type { Client } from 'pg';
import { BEFORE_ALL } from './pipeline/capture/polling/table-reader.ts';
import type { Phase, Progress, ProgressStore } from './pipeline/settle/progress.ts';
import { inWrites, MAX_EVENTS_PER_WRITE } from './pipeline/settle/portion.ts';
import { byNumber, inPortions } from './pipeline/settle/removal.ts';
import { resume } from './pipeline/settle/resume.ts';
import type { Identity } from './pipeline/settle/settled-runs.ts';
import { unseenOf, type Carried, type Write } from './pipeline/settle/settlement.ts';

/** What a session leaves to the next one of this process. */
export interface CarriedProgress extends Carried {
  readonly phase: Phase;
  readonly slotCreatedLsn: bigint;
  /** Of the server: on another one numbers and transaction ids of what was lost are given out again. */
  readonly timeline: string;
}

export interface WrittenCarried {
  /** Undefined: it says nothing about what comes next. */
  readonly carried: CarriedProgress | undefined;
  /** Delivered, and their rows are still not visible. */
  readonly unseen: readonly Identity[];
}

/** Writes what an earlier session settled and could not write: its rows go before they are read again. */
export async function writeCarried(
  client: Client,
  store: ProgressStore,
  { carried, progress }: { readonly carried: CarriedProgress; readonly progress: Progress },
): Promise<WrittenCarried> {
  const { handover, slotCreatedLsn } = progress;
  const same = carried.slotCreatedLsn === slotCreatedLsn && carried.phase === handover;
  const row = {
    position: handover === 'complete' ? progress.durableLsn : BigInt(progress.tableSeq),
    beyond: progress.beyond,
  };
  const { position, beyond, mustNote } = resume(
    same ? carried : { ...carried, position: BigInt(BEFORE_ALL), beyond: [] },
    row,
  );
  let { unseen } = carried;
  if (mustNote && (same || handover !== 'complete')) {
    const remove = async (write: Write): Promise<Identity[]> => {
      const { removed, snapshot } = await store.write(client, write, handover, slotCreatedLsn);
      return removed < write.removable.length ? unseenOf(write, snapshot) : [];
    };
    const { unwritten } = carried;
    // What is known now is noted once all of it is written; until then a crash delivers it again.
    const before = { position: row.position, beyond: undefined };
    let left: Identity[] = [];
    for (const settled of inWrites(unwritten, MAX_EVENTS_PER_WRITE)) {
      const { once, again } = byNumber(settled.map(({ event }) => event));
      // With the dead letters, first: a row must not be removed before its dead letter is written.
      left = left.concat(await remove({ settled, removable: once, retried: [], ...before }));
      for (const event of again) await remove({ settled: [], removable: [event], retried: [], ...before });
    }
    const written = new Set(unwritten.map(({ event }) => nameOf(event)));
    const others = unseen.filter((event) => !written.has(nameOf(event)));
    for (const removable of inPortions(others, MAX_EVENTS_PER_WRITE))
      left = left.concat(await remove({ settled: [], removable, retried: removable, ...before }));
    await remove({ settled: [], removable: [], retried: [], position, beyond });
    unseen = left;
  }
  return {
    carried: same ? { ...carried, position, beyond, unwritten: [], unseen } : undefined,
    unseen,
  };
}

function nameOf({ seq, xid }: Identity): string {
  return `${seq}/${xid}`;
}
