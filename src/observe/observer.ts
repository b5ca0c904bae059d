import { nextMode, type Happening, type Mode } from '../lifecycle/mode.ts';
import type { Message } from '../pipeline/envelope/message.ts';
import type { Durable } from '../pipeline/pipeline.ts';
import type { Settled } from '../pipeline/settle/settlement.ts';
import type { DatabaseClock } from './lag.ts';
import { ChangeLog, type Logger } from './log.ts';
import { MODES, type Metrics } from './metrics.ts';

/** What the running relay tells about itself; one place, so that the pipeline knows neither metrics nor log. */
export class Observer {
  readonly log: Logger;
  readonly changes: ChangeLog;
  readonly metrics: Metrics;
  readonly clock: DatabaseClock;
  /** For the demo: each event as it becomes durable, with its delay since the commit, milliseconds. */
  onDelivered: ((message: Message, delayMs: number) => void) | undefined;
  private currentMode: Mode = 'starting';
  private currentReason = 'starting';

  constructor(parts: { log: Logger; metrics: Metrics; clock: DatabaseClock }) {
    this.log = parts.log;
    this.metrics = parts.metrics;
    this.clock = parts.clock;
    this.changes = new ChangeLog(parts.log, { now: () => performance.now() });
  }

  get mode(): Mode {
    return this.currentMode;
  }

  get reason(): string {
    return this.currentReason;
  }

  /** `reason` comes from a small, fixed set: it is a label of a metric. */
  tell(happening: Happening, reason: string): void {
    const mode = nextMode(this.currentMode, happening);
    if (mode === this.currentMode && reason === this.currentReason) return;
    const lasting = MODES.some((each) => each === mode);
    this.log[lasting ? 'info' : 'debug'](`mode: ${mode}`, { from: this.currentMode, reason });
    this.currentMode = mode;
    this.currentReason = reason;
    this.metrics.setMode(mode, reason);
  }

  /**
   * The metrics as text. `holdsLease`: at this moment; who is cut off from the database learns from its own clock alone
   * that another may lead by now, and both would call themselves the leader.
   */
  exposition(holdsLease: boolean): Promise<string> {
    const delivers = this.currentMode === 'streaming' || this.currentMode === 'polling';
    this.metrics.leader.set(delivers && holdsLease ? 1 : 0);
    return this.metrics.text();
  }

  durable(durable: readonly Durable[]): void {
    const nowMs = performance.now();
    const databaseMs = this.clock.at(nowMs);
    let destination = '';
    let count = 0;
    for (const { message, sentAtMs } of durable) {
      if (message.destination !== destination) {
        if (count > 0) this.metrics.published(destination, count);
        destination = message.destination;
        count = 0;
      }
      count++;
      this.metrics.publishDuration.observe((nowMs - sentAtMs) / 1000);
      const delayMs = (databaseMs ?? Date.now()) - message.event.transaction.committedAtMs;
      this.metrics.deliveryDuration.observe(delayMs / 1000);
      this.onDelivered?.(message, delayMs);
    }
    if (count > 0) this.metrics.published(destination, count);
    this.metrics.lastDurableTimestampSeconds.set(Date.now() / 1000);
  }

  /** The event is sent again, or parked in the end; until then nothing else would say why it does not arrive. */
  publishFailed(
    { code, reason }: { readonly code: string; readonly reason: string },
    { destination, event }: Pick<Message, 'destination' | 'event'>,
  ): void {
    this.metrics.publishFailed(code, 1);
    // One line for all that fail alike: an outage fails thousands of them.
    this.changes.report(`publish ${code}`, code, {
      level: 'warn',
      message: 'an event was not confirmed by the broker',
      fields: { code, reason, destination, seq: event.seq },
    });
  }

  parked({ event, parked }: Settled): void {
    if (!parked) return;
    const { code, reason, attempts } = parked;
    this.metrics.parked(code, 1);
    // One line for a flood of them, also of mixed codes: each stands in the dead letters with its reason, and is counted.
    this.changes.report(`parked ${code}`, code, {
      level: 'warn',
      message: 'event parked in the dead letters',
      fields: { seq: event.seq, code, reason, attempts },
    });
  }
}
