import type { Client } from 'pg';
import type { Config } from './config/config.ts';
import { RelayError } from './errors/errors.ts';
import { classify } from './errors/policy.ts';
import { backoffMs } from './lifecycle/backoff.ts';
import { faultPoint } from './lifecycle/fault-point.ts';
import { within } from './lifecycle/wait.ts';
import type { Observer } from './observe/observer.ts';
import type { Source } from './pipeline/capture/source.ts';
import type { Address } from './pipeline/envelope/router.ts';
import { Pipeline } from './pipeline/pipeline.ts';
import type { Publisher } from './pipeline/publish/publisher.ts';
import { DeletedAtOnce } from './pipeline/settle/deleted-at-once.ts';
import { GiantParking } from './pipeline/settle/giants.ts';
import { OrphanSweep } from './pipeline/settle/orphans.ts';
import type { Phase, ProgressStore } from './pipeline/settle/progress.ts';
import type { Carried, Findings, Settlement, Write } from './pipeline/settle/settlement.ts';
import { Settler } from './pipeline/settle/settler.ts';
import { Upkeep } from './pipeline/settle/upkeep.ts';
import { formatLsn } from './postgres/lsn.ts';

export interface StageOptions {
  readonly config: Config;
  readonly client: Client;
  readonly store: ProgressStore;
  readonly source: Source;
  readonly settlement: Settlement;
  readonly phase: Phase;
  readonly slotCreatedLsn: bigint;
  readonly publisher: Publisher;
  readonly address: Address;
  readonly observer: Observer;
  readonly mayStart: () => boolean;
  readonly stop: AbortSignal;
  /** Ends the stage although its source could go on: as at a stop, but the process lives on. */
  readonly finish?: AbortSignal;
  readonly onWritten?: (write: Write) => void;
  /** What is left of the time for a drain. */
  readonly drainLeftMs: () => number;
}

export interface StageEnd {
  readonly carried: Carried;
  readonly unknown: number;
  /** Why it ended before its source did, unless it was asked to stop. */
  readonly error: unknown;
}

/** A publisher answers within its own deadline; this one only guards against an answer that never comes. */
const OUTCOME_DEADLINE_MS = 60_000;
/** Of a lane whose messages the broker refused or did not answer. */
const RETRY = { firstMs: 100, maxMs: 5_000 };
const SWEEP_INTERVAL_MS = 5_000;
/** Under an old snapshot elsewhere, dead rows make a sweep slow: it rests so many times as long as it took. */
const SWEEP_REST = 20;

/**
 * Runs the pipeline over one source, with the settler beside it, and ends both in order. Whatever happens first wins:
 * the stop, a failure of the source or of the settler, the end of the source. Then nothing more is sent, what is with
 * the broker is awaited, and what is settled is written while the database still answers.
 */
export class Stage {
  readonly options: StageOptions;
  private readonly failure = new AbortController();
  private readonly settler: Settler;
  readonly giants: GiantParking;
  private readonly deletedAtOnce = new DeletedAtOnce();
  readonly pipeline: Pipeline;

  constructor(options: StageOptions) {
    this.options = options;
    const { config, observer, source } = options;
    this.settler = new Settler({
      ...options,
      acknowledge: (position) => source.acknowledge(position),
      onWritten: (write, findings) => {
        options.onWritten?.(write);
        this.pipeline.release(write.settled);
        this.lookForDeletedRows(write, findings).catch((error: Error) => this.fail(error));
      },
    });
    this.giants = new GiantParking({
      config,
      add: (settled) => this.settler.add(settled),
      onFailure: (error) => this.tellUnparked(error),
    });
    this.pipeline = new Pipeline({
      ...options,
      books: this.giants,
      policy: {
        maxAttempts: config.maxAttempts,
        topicGraceMs: config.topicGraceMs,
        maxStuckEvents: Math.floor(config.maxInFlightEvents / 2),
        retryDelayMs: (failures) => backoffMs(RETRY, failures, Math.random()),
      },
      window: { maxEvents: config.maxInFlightEvents, maxBytes: config.maxInFlightBytes },
      onDurable: (durable) => observer.durable(durable),
      onParked: (settled) => observer.parked(settled),
      onSkipped: (count) => observer.metrics.duplicatesSkipped.inc(count),
      onFailure: (outcome, message) => observer.publishFailed(outcome, message),
    });
  }

  /** What the progress row says: the end of a commit when streaming, a `seq` during the pass over the table. */
  get notedPosition(): string {
    const { written } = this.options.settlement;
    return this.options.phase === 'complete' ? formatLsn(written) : `seq ${written}`;
  }

  /** Ends the stage as if its source had failed. */
  fail(error: Error): void {
    this.failure.abort(error);
  }

  /** Never rejects. */
  async run(): Promise<StageEnd> {
    const { stop, finish } = this.options;
    const settlerSignal = new AbortController();
    const settling = this.settler.run(settlerSignal.signal).catch((error: Error) => this.fail(error));
    const upkeep = new Upkeep(this.options.config, this.options.observer).run(settlerSignal.signal);
    const sweeping = this.options.phase === 'complete' ? this.sweepOrphans() : undefined;
    const ending = AbortSignal.any([stop, this.failure.signal, ...(finish ? [finish] : [])]);
    // A lost connection ends the stage, also while there is nothing to write.
    this.options.client.once('end', this.onConnectionEnd);
    await this.pipeline.run(ending).catch((error: Error) => this.fail(error));
    const draining = stop.aborted && !this.failure.signal.aborted;
    if (draining) faultPoint('during-drain');
    const budgetMs = draining ? this.options.drainLeftMs : (): number => OUTCOME_DEADLINE_MS;
    const unknown = await this.pipeline.stop(budgetMs());
    await this.giants.end(ending);
    clearInterval(sweeping);
    this.options.client.removeListener('end', this.onConnectionEnd);
    this.settler.drain();
    await within(settling, budgetMs(), () => this.fail(writeTimeout()));
    settlerSignal.abort(new Error('the stage has ended'));
    await upkeep;
    const error: unknown = this.failure.signal.aborted ? this.failure.signal.reason : undefined;
    return { carried: this.options.settlement.carry(), unknown, error };
  }

  private readonly onConnectionEnd = (): void => {
    this.fail(
      new RelayError('retry', 'connection-lost', 'the connection to PostgreSQL was lost', {
        advice: 'The relay connects again by itself.',
      }),
    );
  };

  /** From the stream alone: what a poll saw may well be gone by now. */
  private async lookForDeletedRows({ settled }: Write, findings: Findings): Promise<void> {
    const { config, client, store, observer, phase } = this.options;
    if (phase !== 'complete' || config.deletedAtOnce !== undefined || config.cleanup === 'none') return;
    const nowMs = performance.now();
    const newestMs = Math.max(...settled.map(({ event }) => event.transaction.committedAtMs));
    const ageMs = (observer.clock.at(nowMs) ?? Date.now()) - newestMs;
    if (!this.deletedAtOnce.note({ ...findings, ageMs }, nowMs)) return;
    await store.noteDeletedAtOnce(client);
    this.fail(deletedAtOnce());
  }

  private tellUnparked(error: unknown): void {
    const { code, advice } = classify(error);
    this.options.observer.changes.report('giants', code, {
      level: 'warn',
      message: 'a row that is too large could not be parked; it is tried again',
      fields: { error, code, advice },
    });
  }

  private sweepOrphans(): NodeJS.Timeout {
    const { config, client, settlement, observer, store, slotCreatedLsn } = this.options;
    const sweep = new OrphanSweep({
      config,
      settlement,
      moveHorizon: (snapshot) => store.moveHorizon(client, slotCreatedLsn, snapshot),
    });
    let running = false;
    let restUntilMs = 0;
    const step = async (): Promise<void> => {
      if (running || this.failure.signal.aborted || performance.now() < restUntilMs) return;
      running = true;
      const startedMs = performance.now();
      const orphans = await sweep.step(client, this.failure.signal);
      restUntilMs = performance.now() + SWEEP_REST * (performance.now() - startedMs);
      running = false;
      if (orphans.length === 0) return;
      observer.metrics.orphans.inc(orphans.length);
      observer.log.warn('rows that the stream never brought are delivered from the table', {
        count: orphans.length,
      });
      this.pipeline.acceptOrphans(orphans);
    };
    return setInterval(() => void step().catch((error: Error) => this.fail(error)), SWEEP_INTERVAL_MS);
  }
}

/** Ends the session once: the next one knows it from the progress row. */
function deletedAtOnce(): RelayError {
  return new RelayError(
    'retry',
    'deleted-at-once',
    'the application deletes its rows at once: the table can not stand in for the slot',
    {
      advice:
        'From now on the table is never polled instead, and the slot is never given up; set DELETED_AT_ONCE=yes or no to decide it yourself.',
    },
  );
}

function writeTimeout(): RelayError {
  return new RelayError('retry', 'write-timeout', 'what is settled could not be written in time', {
    advice: 'It is written by the next session; look for locks on the outbox table and for a slow disk.',
  });
}
