import { RelayError } from '../../errors/errors.ts';
import { formatLsn } from '../../postgres/lsn.ts';
import type { Progress } from '../settle/progress.ts';
import type { StartDecision } from './start-decision.ts';

const ACKNOWLEDGE =
  'What is deleted before there is a new slot is lost as well: stop the writers, deal with what was written between, then: ' +
  "UPDATE outbox_relay_progress SET handover = 'polling' for this slot_name; then a new slot is made.";

const PUT_BACK =
  'Where the missing files of the log can be put back, or PUBLICATION_NAME was changed and is set back, the slot is read on. ';

/**
 * Where the application deletes its rows at once, a new slot in the place of a lost one would pass in silence over what
 * was written between. Throws until a person has said in the progress row that the table alone counts from here.
 */
export function assertNothingLost(
  { progress, decision }: { readonly progress: Progress | undefined; readonly decision: StartDecision },
  endOfLog: bigint,
): void {
  if (!progress || decision.kind !== 'hand-over' || decision.reason === 'polled') return;
  const message = `the slot can not be used (${decision.reason})`;
  throw possibleLoss(message, { fromLsn: progress.durableLsn, toLsn: endOfLog }, { advice: ACKNOWLEDGE });
}

/** The stream stands before a row that can't be sent, and beyond it nothing can be had from anywhere. */
export function unsendable(cause: unknown): RelayError {
  return new RelayError('stop', 'row-unsendable', 'the server can not send what comes next in the slot', {
    advice: `Drop the slot to pass over it. ${ACKNOWLEDGE}`,
    cause,
  });
}

/** What comes next in the slot can't be read, unless a person can mend that. */
export function unreadable(cause: unknown, range: LogRange): RelayError {
  return possibleLoss('the slot can not be read on', range, { advice: PUT_BACK + ACKNOWLEDGE, cause });
}

/** The server leaves out in silence, from version 18 on, what was written while the publication was not there. */
export function publicationMissed(range: LogRange): RelayError {
  return possibleLoss('the publication did not bring every insert and was mended', range, {
    advice: 'Deal with what was written between, while the relay goes on.',
  });
}

interface LogRange {
  readonly fromLsn: bigint;
  readonly toLsn: bigint;
}

function possibleLoss(
  message: string,
  { fromLsn, toLsn }: LogRange,
  rest: { readonly advice: string; readonly cause?: unknown },
): RelayError {
  const range = `${formatLsn(fromLsn)} and ${formatLsn(toLsn)}`;
  return new RelayError(
    'stop',
    'possible-loss',
    `${message}, and the table does not keep its rows: what was written between ${range} may be lost`,
    rest,
  );
}
