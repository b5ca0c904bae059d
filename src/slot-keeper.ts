import type { Client, ClientConfig } from 'pg';
import type { Config } from './config/config.ts';
import type { RelayError } from './errors/errors.ts';
import { classify } from './errors/policy.ts';
import type { Observer } from './observe/observer.ts';
import { findStart, makeSlot, type MadeSlot } from './pipeline/capture/handover.ts';
import { checkStreaming, type Preflight } from './pipeline/capture/preflight.ts';
import type { StartDecision } from './pipeline/capture/start-decision.ts';
import { assertOurs, dropSlot, readSlot } from './pipeline/capture/streaming/slot.ts';
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

  /** What stands in the way of streaming, where the table may be polled instead; else where to begin. */
  async findStart(client: Client, table: OutboxTable): Promise<StreamingStart | { obstacle: string }> {
    const { config } = this.options;
    try {
      const checked = await checkStreaming(client, config, table);
      const found = await this.withReplication((replication) =>
        findStart({ config, client, replication, store: this.options.store, database: checked.database }),
      );
      return { ...found, checked };
    } catch (error) {
      if (!this.mayPoll || !isObstacle(error)) throw error;
      const { code, advice } = classify(error);
      this.options.observer.changes.report('streaming', code, {
        level: 'warn',
        message: 'streaming is not possible, the table is polled instead',
        fields: { error, advice },
      });
      return { obstacle: code };
    }
  }

  /** On connections of its own: the session's goes on settling. */
  async makeSlot(signal: AbortSignal, database: string): Promise<MadeSlot> {
    const { config } = this.options;
    const giveUp = new AbortController();
    const clients: Client[] = [];
    let watch: NodeJS.Timeout | undefined;
    const open = async (): Promise<Client> => {
      const client = await connect(config.database.connection(), { applicationName: 'outbox-relay', signal });
      clients.push(client);
      return client;
    };
    try {
      const [watcher, importer] = [await open(), await open()];
      const slot = await readSlot(watcher, config.slotName);
      if (slot) {
        assertOurs(slot, config.slotName, database);
        await dropSlot(watcher, config.slotName);
      }
      // Also one that is only being made keeps the log.
      if (this.mayPoll) watch = watchRetention(watcher, config, (error) => giveUp.abort(error));
      const stopping = AbortSignal.any([signal, giveUp.signal]);
      return await this.withReplication((replication) =>
        makeSlot({ slotName: config.slotName, client: importer, replication, signal: stopping }),
      );
    } catch (error) {
      throw giveUp.signal.aborted ? giveUp.signal.reason : error;
    } finally {
      clearInterval(watch);
      await Promise.all(clients.map(async (client) => await disconnect(client)));
    }
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
      if (tooMuch) await dropSlot(client, config.slotName);
      throw error;
    } finally {
      clearInterval(watch);
    }
  }

  private async withReplication<T>(action: (replication: ClientConfig) => Promise<T>): Promise<T> {
    const connection = this.options.config.database.connection();
    return await attemptEach(connection, (tls) =>
      action({ ...clientConfig(connection, tls), application_name: 'outbox-relay' }),
    );
  }
}

/** Errors after which the table is polled instead: those that would stop a relay which may only stream. */
function isObstacle(error: unknown): boolean {
  const { consequence, code } = classify(error);
  // Somebody else's slot: what to do with it is for a person to say.
  return consequence === 'stop' && code !== 'slot-foreign';
}
