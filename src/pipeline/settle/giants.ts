import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { Backoff } from '../../lifecycle/backoff.ts';
import { connect, disconnect } from '../../postgres/connect.ts';
import { isGiant, parkFromTable } from './dead-letters.ts';
import type { Settled } from './settlement.ts';

export interface GiantParkingOptions {
  readonly config: Config;
  /** Takes what is settled, and the giants once they are parked. */
  readonly add: (settled: readonly Settled[]) => void;
  readonly onFailure: (error: unknown) => void;
}

/** The server copies a gigabyte within it, also on a slow disk; the relay's other statements have a minute. */
const PARKING_TIMEOUT_MS = 600_000;
const UNSEEN_LOOK_MS = 50;

/**
 * Parks rows that are too large to be held, beside everything else: moving a gigabyte takes the server many seconds, in
 * which the other events must be settled. One at a time, on a connection of its own that is there only meanwhile.
 */
export class GiantParking {
  private readonly options: GiantParkingOptions;
  private readonly over = new AbortController();
  private readonly waiting: Settled[] = [];
  private running: Promise<void> | undefined;

  constructor(options: GiantParkingOptions) {
    this.options = options;
  }

  get active(): boolean {
    return this.running !== undefined;
  }

  add(settled: readonly Settled[]): void {
    const giants = settled.filter(({ event, parked }) => parked && isGiant(event));
    this.options.add(giants.length > 0 ? settled.filter((item) => !giants.includes(item)) : settled);
    if (giants.length === 0) return;
    this.waiting.push(...giants);
    this.running ??= this.run().finally(() => {
      this.running = undefined;
    });
  }

  /** What is not parked by then comes again. */
  async end(signal: AbortSignal): Promise<void> {
    const giveUp = (): void => this.over.abort();
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp, { once: true });
    await this.running;
    signal.removeEventListener('abort', giveUp);
  }

  private async run(): Promise<void> {
    const { signal } = this.over;
    const backoff = new Backoff({ firstMs: 200, maxMs: 10_000 });
    while (!signal.aborted && this.waiting.length > 0) {
      try {
        await this.parkAll();
      } catch (error) {
        if (signal.aborted) return;
        this.options.onFailure(error);
        await backoff.wait(signal);
      }
    }
  }

  private async parkAll(): Promise<void> {
    const { config, add } = this.options;
    const client = await connect(config.database.connection(), {
      applicationName: 'outbox-relay',
      signal: this.over.signal,
      settings: {
        statement_timeout: `${PARKING_TIMEOUT_MS}ms`,
        enable_seqscan: 'off',
        // Whatever the server's default: once it is told as parked, no crash may take the dead letter back.
        synchronous_commit: 'local',
      },
      queryTimeoutMs: PARKING_TIMEOUT_MS + 5_000,
    });
    try {
      for (let next = this.waiting[0]; next; next = this.waiting[0]) {
        const settled = await this.park(client, next);
        this.waiting.shift();
        add([settled]);
      }
    } finally {
      await disconnect(client);
    }
  }

  private async park(client: Client, settled: Settled): Promise<Settled> {
    const { config } = this.options;
    let result = await parkFromTable(client, config, settled);
    // The server streams a commit before others see it.
    while (result === 'unseen') {
      await sleep(UNSEEN_LOOK_MS, undefined, { signal: this.over.signal });
      result = await parkFromTable(client, config, settled);
    }
    return result === 'parked' ? { ...settled, parkedInDatabase: true } : settled;
  }
}
