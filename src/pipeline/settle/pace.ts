/** Above it what a rest saves is worth more than what a kill repeats. Events a second. */
const BUSY_RATE = 4_000;
const REST_MS = 10;
/** A burst of confirms is no load; what lasts for some of these is. */
const MEMORY_MS = 100;

/**
 * How long to rest after a write. Under load a short rest makes the next write larger: each costs the server and this
 * process about as much as fifty rows. At a low rate there is none, since what is delivered and not yet written is what
 * a kill repeats. Pure.
 */
export class Pace {
  private eventsPerMs = 0;
  private lastMs: number;

  /** `nowMs`: monotonic, here and below. */
  constructor(nowMs: number) {
    this.lastMs = nowMs;
  }

  /** A write of so many events has ended. Milliseconds. */
  restAfter(events: number, nowMs: number): number {
    const elapsedMs = Math.max(nowMs - this.lastMs, 0.1);
    this.lastMs = nowMs;
    const weight = 1 - Math.exp(-elapsedMs / MEMORY_MS);
    this.eventsPerMs += weight * (events / elapsedMs - this.eventsPerMs);
    return this.eventsPerMs * 1000 > BUSY_RATE ? REST_MS : 0;
  }
}
