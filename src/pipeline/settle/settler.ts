import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { faultPoint } from '../../lifecycle/fault-point.ts';
import { readLogEnds } from '../../postgres/log-position.ts';
import { Pace } from '../pace.ts';
import { MAX_EVENTS_PER_WRITE } from './portion.ts';
import type { Phase, ProgressStore } from './progress.ts';
import type { Findings, Settled, Settlement, Write } from './settlement.ts';
import { SharedFlush } from './shared-flush.ts';

export interface SettlerOptions {
  readonly client: Client;
  readonly store: ProgressStore;
  readonly settlement: Settlement;
  readonly phase: Phase;
  readonly slotCreatedLsn: bigint;
  readonly acknowledge: (position: bigint) => void;
  readonly onWritten: (write: Write, findings: Findings) => void;
}

/** Committed, but perhaps not yet on disk. */
interface Committed {
  readonly write: Write;
  readonly position: bigint;
  readonly findings: Findings;
}

/** Each write costs the server and this process about as much as fifty rows. */
const REST_MS = 10;
/** Below the rate at which it rests: what a kill would repeat grows with it, what writers share with the clean-up shrinks. */
const LEAST_CYCLE_MS = 3;
/** Between two looks whether the log is on disk, while there is nothing to write. */
const FLUSH_LOOK_MS = 2;
/** The server makes a commit visible within microseconds, unless the machine is busy. */
const UNSEEN_RETRY_MS = 5;
/** A commit that waits for a synchronous standby is in the log and not visible, for as long as the standby takes. */
const MAX_UNSEEN_RETRY_MS = 1_000;
/** An idle stream's position is noted this often at most … */
const IDLE_WRITE_INTERVAL_MS = 10_000;
/** … and only when the log moved by so much: the note itself moves it, too. */
const IDLE_WRITE_BYTES = 1_048_576n;
/** After so much, a segment, sooner: on a busy server ten seconds can be a gigabyte that the slot keeps. */
const IDLE_WRITE_SOON_BYTES = 16_777_216n;

/**
 * Writes what is settled, beside publishing: durable → one transaction (rows, dead letters, progress) → acknowledged.
 * One write at a time; while it runs the next one grows. Fails with the database's error; what was not written then
 * stays in the settlement and is carried into the next session.
 */
export class Settler {
  private readonly options: SettlerOptions;
  private wake: (() => void) | undefined;
  private readonly flush = new SharedFlush<Committed>();
  private draining = false;
  private unseenRetryMs = UNSEEN_RETRY_MS;
  private readonly pace = new Pace(performance.now(), REST_MS);
  private idleSinceMs = performance.now();

  constructor(options: SettlerOptions) {
    this.options = options;
  }

  add(settled: readonly Settled[]): void {
    this.options.settlement.settle(settled);
    this.notify();
  }

  /** Ends when drained; throws when a write failed or the signal aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { settlement } = this.options;
    // Oftener than the interval, or a look that comes a moment too early would double it.
    const timer = setInterval(this.notify, IDLE_WRITE_INTERVAL_MS / 4);
    signal.addEventListener('abort', this.notify, { once: true });
    try {
      for (;;) {
        signal.throwIfAborted();
        if (settlement.unwritten > 0 || settlement.hasUnnoted || this.idleWriteDue())
          await this.writeAndRest();
        else if (this.draining && settlement.owesBeyond) await this.writeOnce();
        else if (this.flush.isWaiting) await this.lookForFlush();
        else if (settlement.unseenCount > 0) await this.retryUnseen();
        else if (this.draining) return;
        else await this.waitForWork();
      }
    } finally {
      clearInterval(timer);
      signal.removeEventListener('abort', this.notify);
    }
  }

  /** Lets `run` end once everything added is written. */
  drain(): void {
    this.draining = true;
    this.notify();
  }

  private async writeOnce(): Promise<number> {
    const { client, store, settlement, phase, slotCreatedLsn } = this.options;
    const write = settlement.nextWrite(
      MAX_EVENTS_PER_WRITE,
      this.draining && settlement.unwritten <= MAX_EVENTS_PER_WRITE,
    );
    faultPoint('after-publish-before-settle');
    const shared = phase === 'complete' && !this.draining && this.flush.next();
    const { logEnds, ...written } = await store.write(client, write, phase, slotCreatedLsn, shared);
    // They were read before this write was committed: they speak of the earlier ones.
    if (shared) this.conclude(this.flush.observe(logEnds));
    this.flush.add({ write, position: settlement.committed(write, written), findings: settlement.findings });
    if (!shared) this.conclude(this.flush.flushed());
    this.idleSinceMs = performance.now();
    return write.settled.length;
  }

  /** On disk: from here on it counts. */
  private conclude(committed: readonly Committed[]): void {
    for (const { write, position, findings } of committed) {
      this.options.settlement.onDisk(write);
      faultPoint('after-settle-before-acknowledge');
      this.options.acknowledge(position);
      faultPoint('after-acknowledge');
      this.options.onWritten(write, findings);
    }
  }

  private async lookForFlush(): Promise<void> {
    const { client, store } = this.options;
    if (this.draining || this.flush.isOverdue) {
      await store.touch(client);
      this.conclude(this.flush.flushed());
      return;
    }
    await sleep(FLUSH_LOOK_MS);
    this.conclude(this.flush.observe(await readLogEnds(client)));
  }

  private async writeAndRest(): Promise<void> {
    const beganMs = performance.now();
    const events = await this.writeOnce();
    const nowMs = performance.now();
    const restMs = Math.max(this.pace.restAfter(events, nowMs), beganMs + LEAST_CYCLE_MS - nowMs);
    if (restMs > 0 && !this.draining && this.options.settlement.unwritten < MAX_EVENTS_PER_WRITE)
      await sleep(restMs);
  }

  private async retryUnseen(): Promise<void> {
    const { settlement } = this.options;
    const before = settlement.unseenCount;
    await this.waitForWork(this.unseenRetryMs);
    this.unseenRetryMs = Math.min(this.unseenRetryMs * 2, MAX_UNSEEN_RETRY_MS);
    await this.writeOnce();
    if (settlement.unseenCount < before) this.unseenRetryMs = UNSEEN_RETRY_MS;
  }

  private idleWriteDue(): boolean {
    const { settlement } = this.options;
    const inTime = performance.now() - this.idleSinceMs >= IDLE_WRITE_INTERVAL_MS;
    const leastBytes = inTime ? IDLE_WRITE_BYTES : IDLE_WRITE_SOON_BYTES;
    return settlement.settledUpTo - settlement.written >= leastBytes;
  }

  /** `mostMs`: not longer than so much. */
  private async waitForWork(mostMs?: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.wake = resolve;
    const timer = mostMs === undefined ? undefined : setTimeout(resolve, mostMs);
    await promise;
    clearTimeout(timer);
    this.wake = undefined;
  }

  private readonly notify = (): void => this.wake?.();
}
