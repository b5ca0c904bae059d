import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import type { CommittedRow } from './judge.ts';

export interface ShopOptions {
  readonly url: string;
  readonly writers?: number;
  readonly keys?: number;
  /** Events a second, all writers together. */
  readonly rate?: number;
  /** Share of transactions that roll back. */
  readonly rollback?: number;
  /** Half of the writers commit with synchronous_commit=off. */
  readonly halfAsynchronous?: boolean;
}

/**
 * Writers that commit events and roll back some, each together with a row of a journal: the database's own record of
 * what was committed, and in which order for each key.
 */
export class Shop {
  private readonly options: Required<ShopOptions>;
  private readonly stopping = new AbortController();
  private running: Promise<void>[] = [];
  /** Transactions whose commit was not answered: they may or may not be in the journal. */
  failures = 0;
  /** Commits that were answered. Some are not in the journal after a crash when they were asynchronous. */
  answered = 0;

  private constructor(options: Required<ShopOptions>) {
    this.options = options;
  }

  /** Makes the journal; `start` begins to write. */
  static async open(options: ShopOptions): Promise<Shop> {
    const shop = new Shop({
      writers: 4,
      keys: 100,
      rate: 1000,
      rollback: 0.15,
      halfAsynchronous: false,
      ...options,
    });
    const client = await shop.connect();
    await client.query(
      `create table if not exists journal (n bigserial primary key, id uuid not null, key text not null, payload text not null)`,
    );
    await client.end();
    return shop;
  }

  start(): void {
    const { writers } = this.options;
    this.running = Array.from({ length: writers }, (_, number) => this.write(number));
  }

  /** Lets each writer finish its transaction. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await Promise.all(this.running);
  }

  /** What was committed, in commit order of each key. */
  async committed(): Promise<CommittedRow[]> {
    const client = await this.connect();
    const { rows } = await client.query<{ n: string; id: string; key: string; payload: string }>(
      'select n, id, key, payload from journal order by n',
    );
    await client.end();
    return rows.map(({ n, id, key, payload }) => ({ order: Number(n), id, key, payload }));
  }

  private async connect(): Promise<Client> {
    const client = new Client({ connectionString: this.options.url, connectionTimeoutMillis: 5_000 });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  /** Until stopped; connects again when the server went away. */
  private async write(number: number): Promise<void> {
    const { signal } = this.stopping;
    let count = 0;
    while (!signal.aborted) {
      let client: Client | undefined;
      try {
        client = await this.connect();
        if (this.options.halfAsynchronous && number % 2 === 0)
          await client.query('set synchronous_commit = off');
        const startMs = performance.now();
        let written = 0;
        while (!signal.aborted) {
          await this.transaction(client, `${number}-${count++}`);
          const dueMs = startMs + (++written * 1000 * this.options.writers) / this.options.rate;
          const restMs = dueMs - performance.now();
          if (restMs > 1) await sleep(restMs, undefined, { signal }).catch(() => undefined);
        }
      } catch {
        this.failures++;
        await sleep(100);
      } finally {
        await client?.end().catch(() => undefined);
      }
    }
  }

  /** The lock on the key in `outbox_emit` makes the journal's number follow the commit order of the key. */
  private async transaction(client: Client, name: string): Promise<void> {
    const key = `key-${Math.floor(Math.random() * this.options.keys)}`;
    const end = Math.random() < this.options.rollback ? 'rollback' : 'commit';
    const payload = `{"name": "${name}", "ünï": "✓ 𝄞", "big": 9007199254740993, "fill": "${'x'.repeat(200)}"}`;
    await client.query(
      `begin; with e as (select outbox_emit('order', '${key}', 'Placed', '${payload}') as id)
       insert into journal (id, key, payload) select e.id, '${key}', '${payload}'::jsonb::text from e; ${end}`,
    );
    if (end === 'commit') this.answered++;
  }
}
