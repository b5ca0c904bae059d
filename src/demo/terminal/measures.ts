const WINDOW_MS = 2_000;
const MAX_DELAYS = 100_000;

/** Events a second over the last two seconds. Times are monotonic milliseconds, given by the caller. */
export class RunningRate {
  private readonly samples: { atMs: number; total: number }[] = [];

  /** @param total events so far. */
  at(nowMs: number, total: number): number {
    const { samples } = this;
    samples.push({ atMs: nowMs, total });
    while (samples.length > 2 && nowMs - (samples[1]?.atMs ?? nowMs) >= WINDOW_MS) samples.shift();
    const first = samples[0] as { atMs: number; total: number };
    const seconds = (nowMs - first.atMs) / 1000;
    return seconds < 0.05 ? 0 : (total - first.total) / seconds;
  }
}

/** Delays in milliseconds; the newest 100,000 are kept. */
export class Delays {
  private readonly values: number[] = [];
  private next = 0;

  add(milliseconds: number): void {
    this.values[this.next] = milliseconds;
    this.next = (this.next + 1) % MAX_DELAYS;
  }

  /** The nearest rank; `undefined` without any. */
  quantiles(...shares: readonly number[]): readonly number[] | undefined {
    if (this.values.length === 0) return undefined;
    const sorted = Float64Array.from(this.values).sort();
    return shares.map((share) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] as number);
  }
}
