import { setTimeout as sleep } from 'node:timers/promises';

/** The one back-off of the relay: capped, with jitter, ended by abort. Source: "full jitter", half of the delay kept. */
export class Backoff {
  private failures = 0;
  private readonly options: { firstMs: number; maxMs: number; random: () => number };

  constructor(options: { firstMs: number; maxMs: number; random?: () => number }) {
    this.options = { random: Math.random, ...options };
  }

  /** Failures in a row so far. */
  get attempts(): number {
    return this.failures;
  }

  /** Milliseconds until the next try; counts a failure. */
  next(): number {
    const { firstMs, maxMs, random } = this.options;
    const ceiling = Math.min(maxMs, firstMs * 2 ** Math.min(this.failures, 30));
    this.failures++;
    return ceiling / 2 + (random() * ceiling) / 2;
  }

  reset(): void {
    this.failures = 0;
  }

  /** Waits for the next try. Resolves early (without throwing) when the signal aborts. */
  async wait(signal: AbortSignal): Promise<void> {
    await sleep(this.next(), undefined, { signal }).catch(() => undefined);
  }
}
