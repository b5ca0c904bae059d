import { median } from '../support/statistics.ts';

/** What a thing may grow by from one third of the run to the next: a share of it and a fixed amount. */
export interface Tolerance {
  readonly share: number;
  readonly plus: number;
}

/** One thing at the end of each minute, in its own unit. */
export interface Series {
  readonly name: string;
  readonly values: readonly number[];
  readonly tolerance: Tolerance;
}

export interface Flatness {
  readonly name: string;
  /** Medians of the second and of the last third. */
  readonly before: number;
  readonly after: number;
  readonly limit: number;
  readonly flat: boolean;
}

/** Three of each third: below that one odd minute makes the median. */
export const LEAST_VALUES = 9;

/**
 * The first third is warm-up. Medians, because a minute that ends a moment after its fault looks different; the later
 * thirds against each other, because what leaks does so with every fault and does not come to rest.
 */
export function judgeFlat({ name, values, tolerance }: Series): Flatness {
  if (values.length < LEAST_VALUES) throw new RangeError(`${name}: ${values.length} values are too few`);
  const third = Math.floor(values.length / 3);
  const before = median(values.slice(third, values.length - third));
  const after = median(values.slice(-third));
  const limit = before * (1 + tolerance.share) + tolerance.plus;
  return { name, before, after, limit, flat: after <= limit };
}
