import { RelayError } from '../../errors/errors.ts';
import { formatLsn } from '../../postgres/lsn.ts';
import type { Progress } from '../settle/progress.ts';
import type { StartDecision } from './start-decision.ts';

const ACKNOWLEDGE =
  "When you have dealt with it: UPDATE outbox_relay_progress SET handover = 'polling' for this slot_name; then a new slot is made.";

/**
 * Where the application deletes its rows at once, a new slot in the place of a lost one would pass in silence over what
 * was written between. Throws until a person has said in the progress row that the table alone counts from here.
 */
export function assertNothingLost(
  { progress, decision }: { readonly progress: Progress | undefined; readonly decision: StartDecision },
  endOfLog: bigint,
): void {
  if (!progress || decision.kind !== 'hand-over' || decision.reason === 'polled') return;
  const range = `${formatLsn(progress.durableLsn)} and ${formatLsn(endOfLog)}`;
  throw new RelayError(
    'stop',
    'possible-loss',
    `the slot can not be used (${decision.reason}), and the table does not keep its rows: what was written between ${range} may be lost`,
    { advice: ACKNOWLEDGE },
  );
}

/** The stream stands before something that can't be read, and beyond it nothing can be had from anywhere. */
export function unreadable(cause: unknown, neverPasses: boolean): RelayError {
  if (neverPasses) {
    return new RelayError('stop', 'row-unsendable', 'the server can not send what comes next in the slot', {
      advice: `Drop the slot to pass over it. ${ACKNOWLEDGE}`,
      cause,
    });
  }
  const message =
    'the slot can not be read on, and the table does not keep its rows: what was written since may be lost';
  return new RelayError('stop', 'possible-loss', message, { advice: ACKNOWLEDGE, cause });
}
