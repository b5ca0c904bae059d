import { messageOf } from '../src/errors/thrown.ts';
import type { Verdict } from '../test/support/judge.ts';

/** What a run leaves behind: figures, and whether every promise was kept. */
export type Outcome = Record<string, unknown> & { kept: boolean };

export function complaint(check: () => unknown): string | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

export function counts(verdict: Verdict): Record<string, number> {
  const { committed, received, lost, invented, altered, outOfOrder, duplicates } = verdict;
  return {
    committed,
    received,
    lost: lost.length,
    invented: invented.length,
    altered: altered.length,
    outOfOrder: outOfOrder.length,
    duplicates,
  };
}

export function nothingWrong({ lost, invented, altered, outOfOrder }: Verdict): boolean {
  return lost.length + invented.length + altered.length + outOfOrder.length === 0;
}

/** mulberry32: the same seed ends the relay after the same times. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
