import { mergeRuns, type Run } from './settled-runs.ts';

interface Generation {
  runs: readonly Run[];
  /** Value of `Watermark.received` when it was closed: once so many are completed, none of it can come again. */
  readonly closedAt: number;
}

/** So many generations are kept apart; beyond that the smallest neighbours are joined (one transaction of a million events). */
const MAX_GENERATIONS = 16;
/**
 * Events are few runs, unless their numbers have gaps. A transaction of any size may be settled but for its last event, and
 * memory is bounded: the oldest of it is forgotten then, and delivered again after a crash.
 */
export const MAX_RUNS = 100_000;

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
    if (this.generations.length > MAX_GENERATIONS) this.joinSmallest();
    while (this.size > MAX_RUNS && this.generations.length > 1) this.generations.shift();
  }

  /** Not the oldest: it would be sorted again and again, and hold all that there is when it has to go. */
  private joinSmallest(): void {
    const { generations } = this;
    const together = (i: number): number =>
      (generations[i]?.runs.length ?? Infinity) + (generations[i + 1]?.runs.length ?? Infinity);
    let smallest = 0;
    for (let i = 1; i + 1 < generations.length; i++) if (together(i) < together(smallest)) smallest = i;
    const [first, second] = generations.slice(smallest, smallest + 2) as [Generation, Generation];
    const joined = { runs: mergeRuns(first.runs, second.runs), closedAt: second.closedAt };
    generations.splice(smallest, 2, joined);
  }

  forget(completed: number): void {
    this.generations = this.generations.filter((generation) => generation.closedAt > completed);
  }

  /** Runs, those that could be joined counted apart. */
  get size(): number {
    return this.generations.reduce((sum, { runs }) => sum + runs.length, 0);
  }

  /** All of it, sorted. */
  runs(): Run[] {
    return mergeRuns(...this.generations.map(({ runs }) => runs));
  }
}
