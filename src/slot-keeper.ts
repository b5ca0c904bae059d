import type { Client, ClientConfig } from 'pg';
import type { Config } from './config/config.ts';
import { RelayError } from './errors/errors.ts';
import { classify } from './errors/policy.ts';
import { retryUntil } from './lifecycle/retry-until.ts';
import type { Observer } from './observe/observer.ts';
import { findStart, giveUpUnreadableSlot, makeSlot, type MadeSlot } from './pipeline/capture/handover.ts';
import {
  assertNothingLost,
  publicationMissed,
  unreadable,
  unsendable,
} from './pipeline/capture/possible-loss.ts';
import { checkStreaming, checkTable, type Preflight } from './pipeline/capture/preflight.ts';
import type { StartDecision } from './pipeline/capture/start-decision.ts';
import { findAbandonedSlots } from './pipeline/capture/streaming/abandoned-slots.ts';
import { examineFailover } from './pipeline/capture/streaming/failover-slot.ts';
import { explainInvalidation } from './pipeline/capture/streaming/invalidation.ts';
import { dropSlot, isOurs, readSlot, type LedSlot, type Slot } from './pipeline/capture/streaming/slot.ts';
import { ReplicationStream } from './pipeline/capture/streaming/stream.ts';
import { endsForEver, type StreamFailures } from './pipeline/capture/unreadable.ts';
import type { Progress, ProgressStore } from './pipeline/settle/progress.ts';
import { attemptEach, clientConfig, connect, disconnect } from './postgres/connect.ts';
import { readEndOfLog } from './postgres/log-position.ts';
import { isPooled } from './postgres/pooler.ts';
import type { OutboxTable } from './postgres/outbox-table.ts';
import { SlotGuard } from './slot-guard.ts';
import type { Stage } from './stage.ts';

/** Where to begin to stream. */
export interface StreamingStart {
  readonly progress: Progress | undefined;
  readonly decision: StartDecision;
  readonly checked: Preflight;
  /** The slot is to follow the standbys. */
  readonly failover: boolean;
}

export interface SlotKeeperOptions {
  /** All that streaming needs is there: what comes now is about the data, not about the settings. */
  readonly onChecked: () => void;
  /** What runs now, if anything does. */
  readonly stage: () => Stage | undefined;
  readonly config: Config;
  readonly store: ProgressStore;
  readonly observer: Observer;
  readonly failures: StreamFailures;
}

/** The replication slot from the outside: may it be used, made, kept, or is the table polled instead? */
export class SlotKeeper {
  readonly guard: SlotGuard;
  private readonly options: SlotKeeperOptions;
  private deletedAtOnce = false;

  constructor(options: SlotKeeperOptions) {
    this.options = options;
    this.guard = new SlotGuard({
      ...options,
      slot: options.store.slot,
      mayGiveUp: async (client) => {
        await this.learnTruth(client);
        return this.mayPoll;
      },
    });
  }

  /**
   * With CLEANUP=none nothing in the table tells what was delivered; and where the application deletes its rows at once,
   * what a slot loses is in no table.
   */
  get mayPoll(): boolean {
    const { source, cleanup } = this.options.config;
    return source === 'auto' && cleanup !== 'none' && !this.deletedAtOnce;
  }

  private get slot(): LedSlot {
    return this.options.store.slot;
  }

  private async learnTruth(client: Client): Promise<void> {
    const { config, store } = this.options;
    this.deletedAtOnce = config.deletedAtOnce ?? (await store.isDeletedAtOnce(client));
  }

  /** Where to begin. Throws what stands in the way of streaming, or that the signal ended the look. */
  async findStart(client: Client, table: OutboxTable, signal: AbortSignal): Promise<StreamingStart> {
    const { config, store } = this.options;
    await this.learnTruth(client);
    if (isPooled(client)) throw pooler();
    const checked = await checkStreaming(client, config, table);
    const { database } = checked;
    const retentionLimitBytes = this.mayPoll ? config.walRetentionLimitBytes : Infinity;
    const found = await this.withReplication((replication) =>
      findStart({ config, client, replication, store, database, retentionLimitBytes, signal }),
    );
    this.options.onChecked();
    if (found.slot) this.tellInvalidation(found.slot);
    await this.tellAbandoned(client);
    if (this.deletedAtOnce) {
      const endOfLog = await readEndOfLog(client);
      assertNothingLost(found, endOfLog);
      if (checked.publicationMended) this.tellMissed(found, endOfLog);
    }
    return { ...found, checked, failover: await this.mayFailOver(client) };
  }

  /** Whether the table is polled instead, because of this error; then it is told. */
  givesWay(error: unknown): boolean {
    const { consequence, code, advice } = classify(error);
    // Somebody else's slot: what to do with it is for a person to say.
    if (!this.mayPoll || code === 'slot-foreign') return false;
    if (consequence !== 'stop' && code !== 'no-free-sender') return false;
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

  private tellMissed(
    { progress, decision }: Pick<StreamingStart, 'progress' | 'decision'>,
    endOfLog: bigint,
  ): void {
    if (!progress || decision.kind === 'hand-over') return;
    const error = publicationMissed({ fromLsn: progress.durableLsn, toLsn: endOfLog });
    this.options.observer.log.error('events may have passed the publication by', { error });
  }

  private tellInvalidation(slot: Slot): void {
    const { config, observer } = this.options;
    const invalidation = explainInvalidation(slot);
    const { reason = 'valid', message = 'the replication slot is valid', advice } = invalidation ?? {};
    observer.changes.report('slot', reason, {
      level: invalidation ? 'warn' : 'debug',
      message,
      fields: { slot: config.slotName, reason, advice },
    });
  }

  /** Offered, not done: somebody may only have stopped the relay of that slot for a while. */
  private async tellAbandoned(client: Client): Promise<void> {
    const { config, observer } = this.options;
    const abandoned = await findAbandonedSlots(client, config);
    observer.changes.report('abandoned-slots', abandoned.map(({ slot }) => slot).join() || 'none', {
      level: abandoned.length > 0 ? 'warn' : 'debug',
      message: 'slots that a relay of this outbox made under another SLOT_NAME, and that nobody reads',
      fields: {
        slots: abandoned,
        advice: 'Each keeps the log for ever: run its statement, unless its relay is to be started again.',
      },
    });
  }

  /**
   * Checks all that streaming needs and makes the slot, on connections of its own: the session's goes on settling. The
   * signal gives the slot up and leaves none behind; `connections` ends what is not answered.
   */
  async makeSlot(signal: AbortSignal, connections: AbortSignal): Promise<MadeSlot> {
    const { config } = this.options;
    const giveUp = new AbortController();
    const clients: Client[] = [];
    const open = async (ending: AbortSignal): Promise<Client> => {
      const client = await connect(config.database.connection(), {
        applicationName: 'outbox-relay',
        signal: ending,
      });
      clients.push(client);
      return client;
    };
    let begun: Client | undefined;
    try {
      // Not ended by the signal: it also drops what was half made.
      const [dropper, importer] = [await open(connections), await open(signal)];
      const { failover } = await this.findStart(dropper, await checkTable(dropper, config), signal);
      await dropSlot(dropper, this.slot);
      const stopping = AbortSignal.any([signal, giveUp.signal]);
      stopping.throwIfAborted();
      begun = dropper;
      // Also one that is only being made keeps the log.
      if (this.mayPoll) this.guard.watchMade(giveUp);
      const made = await this.withReplication((replication) =>
        makeSlot({
          slotName: config.slotName,
          failover,
          inexact: this.mayPoll,
          client: importer,
          replication,
          signal: stopping,
        }),
      );
      giveUp.signal.throwIfAborted();
      return made;
    } catch (error) {
      if (begun) await this.dropUnused(begun);
      await this.guard.unwatchMade();
      throw giveUp.signal.aborted ? giveUp.signal.reason : error;
    } finally {
      await Promise.all(clients.map(async (client) => await disconnect(client)));
    }
  }

  /** Tells what keeps SLOT_FAILOVER from its effect, or would make the delivery wait without a word. */
  private async mayFailOver(client: Client): Promise<boolean> {
    if (!this.options.config.slotFailover) return false;
    const { can, state, message } = await examineFailover(client);
    const level = state === 'ready' ? 'debug' : 'warn';
    this.options.observer.changes.report('failover-slot', state, { level, message });
    return can;
  }

  /** One that nobody will read. What can't be dropped now is dropped when the next one is made. */
  async dropUnused(client: Client): Promise<void> {
    await dropSlot(client, this.slot).catch(() => undefined);
  }

  /** Nobody reads it while the table is polled, and it would keep the log for ever. */
  async leaveSlot(client: Client): Promise<void> {
    const { config, observer } = this.options;
    if (config.source === 'polling') {
      await this.tellAbandoned(client);
      await this.mayFailOver(client);
    }
    const slot = await readSlot(client, config.slotName);
    if (!slot || !isOurs(slot, client.database)) return;
    await dropSlot(client, this.slot).catch((error: unknown) => {
      observer.changes.report('slot', 'slot-left', {
        level: 'warn',
        message:
          'the replication slot is not used while the table is polled, and could not be dropped: it keeps the log',
        fields: { slot: config.slotName, error, advice: 'Drop it: SELECT pg_drop_replication_slot(…).' },
      });
    });
  }

  async openStream(startLsn: bigint, checked: Preflight, signal: AbortSignal): Promise<ReplicationStream> {
    const { config, failures } = this.options;
    const { outbox } = config;
    const connection = config.database.connection();
    return attemptEach(connection, (tls) =>
      ReplicationStream.open(
        {
          clientConfig: { ...clientConfig(connection, tls), application_name: 'outbox-relay' },
          slotName: config.slotName,
          publicationName: config.publicationName,
          startLsn,
          outbox: {
            schema: outbox.schema,
            table: outbox.table,
            seqColumn: outbox.columns.seq,
            xidColumn: outbox.columns.xid,
            requiredColumns: [outbox.columns.id, outbox.columns.payload],
            addressColumns: checked.addressColumns,
            oids: checked.oids,
            others: checked.others,
            alone: checked.alone,
            asked: failures.asked,
          },
          maxEventBytes: config.maxEventBytes,
          walSenderTimeoutMs: checked.walSenderTimeoutMs,
        },
        signal,
      ),
    );
  }

  /**
   * What to end the session with. A slot that can't be read on is given up, where the table has what it loses.
   * `position`: what is settled.
   */
  async giveUpUnreadable(client: Client, error: unknown, position: bigint): Promise<unknown> {
    const ends = endsForEver(error);
    if (!ends && !this.options.failures.neverPasses(error, position)) return error;
    if (!this.deletedAtOnce) return await giveUpUnreadableSlot(client, this.slot, error);
    if (!ends) return unsendable(error);
    return unreadable(error, { fromLsn: position, toLsn: await readEndOfLog(client) });
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

function pooler(): RelayError {
  return new RelayError('stop', 'pooler', 'the connection goes through a pooler, which can not stream', {
    advice: 'Let DATABASE_URL name PostgreSQL itself to stream from it, or set SOURCE=polling.',
  });
}
