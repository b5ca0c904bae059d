import type { Client } from 'pg';
import type { Config } from './config/config.ts';
import type { RelayError } from './errors/errors.ts';
import type { Observer } from './observe/observer.ts';
import { watchRetention } from './pipeline/capture/streaming/retention.ts';
import { dropSlot, type LedSlot } from './pipeline/capture/streaming/slot.ts';
import type { Stage } from './stage.ts';
import { pause } from './lifecycle/wait.ts';

const LONG_START_MS = 1_000;

export interface SlotGuardOptions {
  readonly config: Config;
  readonly observer: Observer;
  readonly slot: LedSlot;
  /** What runs now, if anything does. */
  readonly stage: () => Stage | undefined;
  /** Whether the table has what the slot would lose. */
  readonly mayGiveUp: (client: Client) => Promise<boolean>;
}

/** Gives the slot up when it keeps more of the log than WAL_RETENTION_LIMIT_BYTES: the table has every event. */
export class SlotGuard {
  private readonly options: SlotGuardOptions;
  /** Ends the guard of a slot that is being made, or was made and is not streamed from yet. */
  private endWatch: () => Promise<void> = async () => await Promise.resolve();

  constructor(options: SlotGuardOptions) {
    this.options = options;
  }

  /** From the moment it is begun until it is streamed from: what was polled beside it may take long to be settled. */
  watchMade(giveUp: AbortController): void {
    const { config, slot } = this.options;
    const over = new AbortController();
    const watching = watchRetention({
      config,
      onTooMuch: async (error, watcher) => {
        giveUp.abort(error);
        await dropSlot(watcher, slot);
      },
      onGuard: this.tell,
      signal: over.signal,
    });
    this.endWatch = async () => {
      over.abort();
      await watching;
    };
  }

  /** The slot that was made is guarded otherwise from here on, or given up. Idempotent. */
  async unwatchMade(): Promise<void> {
    await this.endWatch();
  }

  /**
   * While it is streamed from. It is dropped at once, beside the stage that ends: that waits for the broker's answers,
   * which may be a minute away, while the log grows.
   */
  async during(client: Client, deliver: () => Promise<void>): Promise<void> {
    const unwatched = this.unwatchMade();
    const over = new AbortController();
    let tooMuch = false;
    this.options.observer.changes.report('retention', 'within', {
      level: 'debug',
      message: 'the slot is guarded',
    });
    const watching = this.watch(over.signal, (error) => {
      tooMuch = true;
      this.options.stage()?.fail(error);
    });
    try {
      await deliver();
    } catch (error) {
      if (tooMuch) await dropSlot(client, this.options.slot).catch(() => undefined);
      throw error;
    } finally {
      over.abort();
      await unwatched;
      await watching;
    }
  }

  /**
   * The same while no session runs, because the relay waits for a person: nobody reads the slot, and it keeps more and
   * more of the log. Until the signal aborts, on a connection of its own; never rejects. For the leader alone.
   */
  async whileHalted(signal: AbortSignal): Promise<void> {
    await this.watch(signal, () => undefined);
  }

  /**
   * The same beside what comes before streaming, when that takes long: a table that is locked for hours lets no session get
   * any further.
   */
  async beside<T>(work: () => Promise<T>): Promise<T> {
    const over = new AbortController();
    const guarding = pause(LONG_START_MS, over.signal).then(async () => await this.whileHalted(over.signal));
    try {
      return await work();
    } finally {
      over.abort();
      await guarding;
    }
  }

  private async watch(signal: AbortSignal, onTooMuch: (error: RelayError) => void): Promise<void> {
    const { config, observer, slot, mayGiveUp } = this.options;
    await watchRetention({
      config,
      signal,
      onGuard: this.tell,
      onTooMuch: async (error, watcher) => {
        const { code, message, advice } = error;
        observer.changes.report('retention', code, { level: 'warn', message, fields: { advice } });
        if (!(await mayGiveUp(watcher))) return;
        onTooMuch(error);
        await dropSlot(watcher, slot);
      },
    });
  }

  private readonly tell = (broken: unknown): void => {
    const { changes } = this.options.observer;
    if (broken === undefined && changes.last('guard') !== 'broken') return;
    const fields = { slot: this.options.config.slotName };
    if (broken === undefined) {
      changes.report('guard', 'looks', { level: 'info', message: 'the slot is guarded again', fields });
      return;
    }
    changes.report('guard', 'broken', {
      level: 'warn',
      message: 'nobody can see now how much of the log the slot keeps, or give it up; it is tried again',
      fields: { ...fields, error: broken },
    });
  };
}
