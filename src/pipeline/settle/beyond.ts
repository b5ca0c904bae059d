import { mergeRuns, type Run } from './settled-runs.ts';

interface Generation {
  runs: readonly Run[];
  /** Value of `Watermark.received` when it was closed: once so many are completed, none of it can come again. */
  readonly closedAt: number;
}

/** So many generations are kept apart; beyond that the oldest are joined (one transaction of a million events). */
const MAX_GENERATIONS = 16;

/**
 * What is settled beyond the acknowledged position: after a restart these events come again and are skipped.
 * Knowledge is added per batch and dropped per batch, when the watermark has passed everything that had been received
 * by then; looking up single events to remove them would cost more than the events themselves.
 */
export class SettledBeyond {
  private generations: Generation[] = [];

  add(runs: readonly Run[], received: number): void {
    if (runs.length === 0) return;
    this.generations.push({ runs, closedAt: received });
    if (this.generations.length <= MAX_GENERATIONS) return;
    const [first, second] = this.generations.splice(0, 2) as [Generation, Generation];
    this.generations.unshift({ runs: mergeRuns(first.runs, second.runs), closedAt: second.closedAt });
  }

  forget(completed: number): void {
    this.generations = this.generations.filter((generation) => generation.closedAt > completed);
  }

  /** All of it, sorted. */
  runs(): Run[] {
    return mergeRuns(...this.generations.map(({ runs }) => runs));
  }
}
