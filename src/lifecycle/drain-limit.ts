/**
 * How long a drain may take: counted from the moment of the stop, over everything that it waits for, so that the steps
 * together stay within the limit that the orchestrator kills at.
 */
export class DrainLimit {
  private readonly stop: AbortSignal;
  private readonly totalMs: number;
  private readonly onOver: () => void;
  private overMs: number | undefined;
  private timer: NodeJS.Timeout | undefined;

  /** `onOver` ends what a silent server is still waited for then: its statement's own deadline may be longer. */
  constructor(stop: AbortSignal, totalMs: number, onOver: () => void) {
    this.stop = stop;
    this.totalMs = totalMs;
    this.onOver = onOver;
    if (stop.aborted) this.begin();
    else stop.addEventListener('abort', this.begin, { once: true });
  }

  /** What is left of it; all of it before the stop. */
  readonly leftMs = (): number =>
    this.overMs === undefined ? this.totalMs : Math.max(0, this.overMs - performance.now());

  end(): void {
    this.stop.removeEventListener('abort', this.begin);
    clearTimeout(this.timer);
  }

  private readonly begin = (): void => {
    this.overMs = performance.now() + this.totalMs;
    this.timer = setTimeout(this.onOver, this.totalMs);
  };
}
