/** Above it what a rest saves is worth more than what it delays. Events a second. */
const BUSY_RATE = 4_000;
/** A burst of confirms is no load; what lasts for some of these is. */
const MEMORY_MS = 100;

/**
 * How long to rest after a write. Under load a short rest makes the next write larger, and each costs the server and this
 * process as much as many events do. At a low rate there is none: nobody is kept waiting. Pure.
 */
export class Pace {
  private eventsPerMs = 0;
  private lastMs: number;
  private readonly restMs: number;

  /** `nowMs`: monotonic, here and below. */
  constructor(nowMs: number, restMs: number) {
    this.lastMs = nowMs;
    this.restMs = restMs;
  }

  /** A write of so many events has ended. Milliseconds. */
  restAfter(events: number, nowMs: number): number {
    const elapsedMs = Math.max(nowMs - this.lastMs, 0.1);
    this.lastMs = nowMs;
    const weight = 1 - Math.exp(-elapsedMs / MEMORY_MS);
    this.eventsPerMs += weight * (events / elapsedMs - this.eventsPerMs);
    return this.eventsPerMs * 1000 > BUSY_RATE ? this.restMs : 0;
  }
}
