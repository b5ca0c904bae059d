import type { Client, ClientConfig } from 'pg';
import type { Config } from './config/config.ts';
import { RelayError } from './errors/errors.ts';
import { classify } from './errors/policy.ts';
import { retryUntil } from './lifecycle/retry-until.ts';
import type { Observer } from './observe/observer.ts';
import { findStart, makeSlot, type MadeSlot } from './pipeline/capture/handover.ts';
import { checkStreaming, checkTable, type Preflight } from './pipeline/capture/preflight.ts';
import type { StartDecision } from './pipeline/capture/start-decision.ts';
import { dropSlot, readSlot } from './pipeline/capture/streaming/slot.ts';
import { ReplicationStream } from './pipeline/capture/streaming/stream.ts';
import { watchRetention } from './pipeline/capture/streaming/retention.ts';
import type { Progress, ProgressStore } from './pipeline/settle/progress.ts';
import { attemptEach, clientConfig, connect, disconnect } from './postgres/connect.ts';
import type { OutboxTable } from './postgres/outbox-table.ts';
import type { Stage } from './stage.ts';

/** Where to begin to stream. */
export interface StreamingStart {
  readonly progress: Progress | undefined;
  readonly decision: StartDecision;
  readonly checked: Preflight;
}

export interface SlotKeeperOptions {
  readonly config: Config;
  readonly store: ProgressStore;
  readonly observer: Observer;
}

/** The replication slot from the outside: may it be used, made, kept, or is the table polled instead? */
export class SlotKeeper {
  private readonly options: SlotKeeperOptions;

  constructor(options: SlotKeeperOptions) {
    this.options = options;
  }

  /** With CLEANUP=none nothing in the table tells what was delivered. */
  get mayPoll(): boolean {
    const { source, cleanup } = this.options.config;
    return source === 'auto' && cleanup !== 'none';
  }

  /** Where to begin. Throws what stands in the way of streaming. */
  async findStart(client: Client, table: OutboxTable): Promise<StreamingStart> {
    const { config, store } = this.options;
    const checked = await checkStreaming(client, config, table);
    const { database } = checked;
    const retentionLimitBytes = this.mayPoll ? config.walRetentionLimitBytes : Infinity;
    const found = await this.withReplication((replication) =>
      findStart({ config, client, replication, store, database, retentionLimitBytes }),
    );
    return { ...found, checked };
  }

  /** Whether the table is polled instead, because of this error; then it is told. */
  givesWay(error: unknown): boolean {
    const { consequence, code, advice } = classify(error);
    // Somebody else's slot: what to do with it is for a person to say.
    if (!this.mayPoll || consequence !== 'stop' || code === 'slot-foreign') return false;
    this.tellObstacle(error, code, advice);
    return true;
  }

  tellObstacle(error: unknown, code: string, advice: string): void {
    this.options.observer.changes.report('streaming', code, {
      level: 'warn',
      message: 'streaming is not possible now, the table is polled instead',
      fields: { error, advice },
    });
  }

  /** Checks all that streaming needs and makes the slot, on connections of its own: the session's goes on settling. */
  async makeSlot(signal: AbortSignal): Promise<MadeSlot> {
    const { config } = this.options;
    const giveUp = new AbortController();
    const clients: Client[] = [];
    let watch: NodeJS.Timeout | undefined;
    const open = async (ending?: AbortSignal): Promise<Client> => {
      const client = await connect(config.database.connection(), {
        applicationName: 'outbox-relay',
        signal: ending ?? new AbortController().signal,
      });
      clients.push(client);
      return client;
    };
    let begun: Client | undefined;
    try {
      // Not ended by the signal: it also drops what was half made.
      const [watcher, importer] = [await open(), await open(signal)];
      await this.findStart(watcher, await checkTable(watcher, config));
      await dropSlot(watcher, config.slotName);
      // Also one that is only being made keeps the log.
      if (this.mayPoll) watch = watchRetention(watcher, config, (error) => giveUp.abort(error));
      const stopping = AbortSignal.any([signal, giveUp.signal]);
      stopping.throwIfAborted();
      begun = watcher;
      return await this.withReplication((replication) =>
        makeSlot({ slotName: config.slotName, client: importer, replication, signal: stopping }),
      );
    } catch (error) {
      if (begun) await this.dropUnused(begun);
      throw giveUp.signal.aborted ? giveUp.signal.reason : error;
    } finally {
      clearInterval(watch);
      await Promise.all(clients.map(async (client) => await disconnect(client)));
    }
  }

  /** One that nobody will read. What can't be dropped now is dropped when the next one is made. */
  async dropUnused(client: Client): Promise<void> {
    await dropSlot(client, this.options.config.slotName).catch(() => undefined);
  }

  /** Nobody reads it while the table is polled, and it would keep the log for ever. */
  async leaveSlot(client: Client): Promise<void> {
    const { config, observer } = this.options;
    const slot = await readSlot(client, config.slotName);
    // One in another database is somebody else's.
    if (slot?.plugin !== 'pgoutput' || slot.database !== client.database) return;
    await dropSlot(client, config.slotName).catch((error: unknown) => {
      observer.changes.report('slot', 'slot-left', {
        level: 'warn',
        message:
          'the replication slot is not used while the table is polled, and could not be dropped: it keeps the log',
        fields: { slot: config.slotName, error, advice: 'Drop it: SELECT pg_drop_replication_slot(…).' },
      });
    });
  }

  /** Gives the slot up when it keeps too much of the log: the table has every event. */
  async guarded(client: Client, stage: () => Stage | undefined, delivering: Promise<void>): Promise<void> {
    const { config, observer } = this.options;
    let tooMuch: RelayError | undefined;
    const watch = watchRetention(client, config, (error) => {
      observer.changes.report('retention', error.code, {
        level: 'warn',
        message: error.message,
        fields: { advice: error.advice },
      });
      if (!this.mayPoll) return;
      tooMuch = error;
      stage()?.fail(error);
    });
    try {
      await delivering;
    } catch (error) {
      if (tooMuch) await this.dropUnused(client);
      throw error;
    } finally {
      clearInterval(watch);
    }
  }

  async openStream(startLsn: bigint, checked: Preflight): Promise<ReplicationStream> {
    const { config } = this.options;
    const { outbox } = config;
    const connection = config.database.connection();
    return attemptEach(connection, (tls) =>
      ReplicationStream.open({
        clientConfig: { ...clientConfig(connection, tls), application_name: 'outbox-relay' },
        slotName: config.slotName,
        publicationName: config.publicationName,
        startLsn,
        outbox: {
          schema: outbox.schema,
          table: outbox.table,
          seqColumn: outbox.columns.seq,
          xidColumn: outbox.columns.xid,
          requiredColumns: checked.requiredColumns,
          foreignOids: checked.foreignOids,
        },
        walSenderTimeoutMs: checked.walSenderTimeoutMs,
      }),
    );
  }

  /** The drain has ended when the slot itself says so: a status message may be lost with its socket. */
  async confirm(client: Client, position: bigint, budgetMs: number): Promise<void> {
    const { slotName } = this.options.config;
    const confirmed = await retryUntil(budgetMs, async () => {
      const slot = await readSlot(client, slotName);
      return slot?.confirmedLsn !== undefined && slot.confirmedLsn >= position;
    });
    if (confirmed) return;
    throw new RelayError('retry', 'not-confirmed', 'the slot did not confirm the last position in time', {
      advice: 'The next relay goes on from the progress row; raise SHUTDOWN_TIMEOUT_MS if this repeats.',
    });
  }

  private async withReplication<T>(action: (replication: ClientConfig) => Promise<T>): Promise<T> {
    const connection = this.options.config.database.connection();
    return await attemptEach(connection, (tls) =>
      action({ ...clientConfig(connection, tls), application_name: 'outbox-relay' }),
    );
  }
}
