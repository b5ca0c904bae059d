import { pause } from './wait.ts';

export interface BackoffRange {
  readonly firstMs: number;
  readonly maxMs: number;
}

/**
 * Milliseconds until the next try after so many failures: doubled each time, capped, and spread so that not all return
 * at once: half of the delay is kept, half is random ("equal jitter"). Pure: `random` is in [0, 1).
 */
export function backoffMs({ firstMs, maxMs }: BackoffRange, failures: number, random: number): number {
  const ceiling = Math.min(maxMs, firstMs * 2 ** Math.min(failures, 30));
  return ceiling / 2 + (random * ceiling) / 2;
}

/** The one back-off of the relay, for who fails in a row. */
export class Backoff {
  private failures = 0;
  private readonly options: BackoffRange & { readonly random: () => number };

  constructor(options: BackoffRange & { readonly random?: () => number }) {
    this.options = { random: Math.random, ...options };
  }

  /** Failures in a row so far. */
  get attempts(): number {
    return this.failures;
  }

  /** Milliseconds until the next try; counts a failure. */
  next(): number {
    return backoffMs(this.options, this.failures++, this.options.random());
  }

  reset(): void {
    this.failures = 0;
  }

  /** Waits for the next try. Resolves early (without throwing) when the signal aborts. */
  async wait(signal: AbortSignal): Promise<void> {
    await pause(this.next(), signal);
  }
}
