import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { classify } from '../../errors/policy.ts';
import type { Observer } from '../../observe/observer.ts';
import { connect, disconnect } from '../../postgres/connect.ts';
import { MarkRetention } from './mark-retention.ts';
import { LOCK_TIMEOUT } from './partition-catalog.ts';
import { PartitionDropper } from './partitions.ts';
import { pause } from '../../lifecycle/wait.ts';

/** Between two looks when there is nothing to do. */
const IDLE_MS = 5_000;
/** After a lock that was not to be had: an attempt waits for it a twentieth of this. */
const LOCKED_MS = 1_000;
/** It rests so many times as long as a step took: the server is there for the writers. */
const REST = 10;
/** For what may read a whole partition. */
const STATEMENT_TIMEOUT_MS = 3_600_000;
const GOODBYE_MS = 5_000;

/**
 * What the settled leave behind: removes old marked rows and whole partitions. Beside delivery, on a connection of its
 * own, so that nothing ever waits for it. Whether something may go is read from the table, never remembered: a leader
 * that was replaced without knowing it does no harm here.
 */
export class Upkeep {
  private readonly config: Config;
  private readonly observer: Observer;
  private readonly marks: MarkRetention | undefined;
  private readonly partitions: PartitionDropper | undefined;

  constructor(config: Config, observer: Observer) {
    const { markRetentionMs, partitionRetentionMs } = config;
    this.config = config;
    this.observer = observer;
    if (markRetentionMs !== undefined) this.marks = new MarkRetention(config, markRetentionMs);
    if (partitionRetentionMs !== undefined)
      this.partitions = new PartitionDropper(config, partitionRetentionMs);
  }

  /** Until the signal aborts; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    if (!this.marks && !this.partitions) return;
    while (!signal.aborted) {
      try {
        const client = await connect(this.config.database.connection(), {
          applicationName: 'outbox-relay upkeep',
          signal,
          // Given up sooner, a statement would go on at the server, and the next one beside it.
          queryTimeoutMs: STATEMENT_TIMEOUT_MS + GOODBYE_MS,
          settings: {
            lock_timeout: LOCK_TIMEOUT,
            statement_timeout: `${STATEMENT_TIMEOUT_MS}ms`,
            enable_seqscan: 'off',
            enable_bitmapscan: 'off',
            // What a crash takes back is removed again.
            synchronous_commit: 'off',
          },
        });
        try {
          await this.work(client, signal);
        } finally {
          await disconnect(client);
        }
      } catch (error) {
        if (signal.aborted) return;
        this.tell(error);
        await pause(IDLE_MS, signal);
      }
    }
  }

  private async work(client: Client, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const beganMs = performance.now();
      const more = (await this.marks?.step(client, beganMs)) === true;
      const waitMs = more ? 0 : await this.dropPartition(client);
      const restMs = Math.max(REST * (performance.now() - beganMs), waitMs);
      await pause(restMs, signal);
    }
  }

  /** Resolves with how long the next look has time, milliseconds. */
  private async dropPartition(client: Client): Promise<number> {
    const { log, changes } = this.observer;
    const step = (await this.partitions?.step(client)) ?? { kind: 'idle' };
    changes.report('upkeep', 'working', { level: 'debug', message: 'the upkeep works' });
    if (step.kind === 'dropped') {
      log.info('partition dropped', { partition: step.name });
      return 0;
    }
    if (step.kind === 'attached-again')
      log.warn('a transaction wrote into a partition that was being dropped: it is attached again', {
        partition: step.name,
        advice: 'Set PARTITION_RETENTION above the longest transaction that writes events.',
      });
    return step.kind === 'waiting' ? LOCKED_MS : IDLE_MS;
  }

  private tell(error: unknown): void {
    const { code, advice } = classify(error);
    this.observer.changes.report('upkeep', code, {
      level: 'warn',
      message: 'old rows or partitions could not be removed; it is tried again',
      fields: { error, advice },
    });
  }
}
