import { mergeRuns, type Run } from './settled-runs.ts';
import type { Carried } from './settlement.ts';

/** What the progress row says. */
export interface Noted {
  readonly position: bigint;
  readonly beyond: readonly Run[];
}

/**
 * Joins what this process knows with what the row says; another relay may have led meanwhile, and neither may take back
 * what the other settled. Pure.
 *
 * `mustNote`: the row does not say all of it yet. It has to before a stream starts at `position`: the server takes the
 * start for an acknowledgement, and a slot that confirms more than the row looks like somebody else's after a crash.
 */
export function resume(carried: Carried, row: Noted): Noted & { readonly mustNote: boolean } {
  const ahead = carried.position > row.position;
  const beyond = mergeRuns(carried.beyond, row.beyond);
  const knowsMore = carried.position >= row.position && numbersIn(beyond) > numbersIn(row.beyond);
  return {
    position: ahead ? carried.position : row.position,
    beyond,
    mustNote: ahead || knowsMore || carried.unwritten.length > 0 || carried.unseen.length > 0,
  };
}

function numbersIn(runs: readonly Run[]): number {
  return runs.reduce((sum, { seqFrom, seqTo }) => sum + seqTo - seqFrom + 1, 0);
}
