import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { seeded } from '../../../scripts/fault-result.ts';
import { TYPES } from './brokers.ts';
import { emit, type Event } from './journal.ts';
import { MAX_EVENT_BYTES, type Load } from './schedule.ts';

const RECONNECT_AFTER_MS = 100;
const HOT_KEYS = 2;
/** Until every transaction of a crowd has inserted. */
const CROWD_GATHERS_MS = 300;
/** Larger than MAX_EVENT_BYTES in every type of payload. */
const POISON_BYTES = MAX_EVENT_BYTES * 1.2;

/** Writers with the schedule's habits. Every other one commits with synchronous_commit=off. */
export class Writers {
  private readonly url: string;
  private readonly load: Load;
  private readonly random: () => number;
  private readonly stopping = new AbortController();
  private running: Promise<void>[] = [];
  private count = 0;

  constructor(url: string, load: Load, seed: number) {
    this.url = url;
    this.load = load;
    this.random = seeded(seed);
  }

  start(): void {
    const { writers, bursts, long, big, crowds, poison, nowhere } = this.load;
    this.running = [
      ...Array.from({ length: writers }, async (_, number) => await this.flow(number)),
      ...bursts.map(async ({ atMs, events }) => await this.once(atMs, () => this.burst(events))),
      ...long.map(async ({ atMs, ...how }) => await this.hold(atMs, how)),
      ...big.map(async ({ atMs, bytes }) => await this.once(atMs, () => this.large(bytes, false))),
      ...crowds.map(async ({ atMs, transactions }) => await this.crowd(atMs, transactions)),
      ...nowhere.map(async ({ atMs }) => await this.once(atMs, () => this.misdirected())),
      ...poison.map(async ({ atMs }) => await this.once(atMs, () => this.large(POISON_BYTES, true))),
    ];
  }

  /** Each ends its transaction first. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await Promise.all(this.running);
  }

  private async flow(number: number): Promise<void> {
    const { signal } = this.stopping;
    const perMs = this.load.rate / this.load.writers / 1_000;
    const startMs = performance.now();
    let written = 0;
    await this.connected(number, async (client) => {
      while (!signal.aborted) {
        const events = 1 + Math.floor(this.random() * 3);
        written += events;
        await client.query(this.transaction(events));
        await this.rest(startMs + written / perMs - performance.now());
      }
    });
  }

  /** Connects again, and goes on, whenever the database went away. */
  private async connected(number: number, work: (client: Client) => Promise<void>): Promise<void> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      const client = new Client({ connectionString: this.url, connectionTimeoutMillis: 5_000 });
      client.on('error', () => undefined);
      try {
        await client.connect();
        if (number % 2 === 0) await client.query('set synchronous_commit = off');
        await work(client);
        return;
      } catch {
        // Whether its commit happened is in the journal.
        await sleep(RECONNECT_AFTER_MS);
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  }

  private async once(atMs: number, sql: () => string): Promise<void> {
    await this.rest(atMs);
    if (this.stopping.signal.aborted) return;
    await this.connected(1, async (client) => void (await client.query(sql())));
  }

  private async hold(atMs: number, { holdMs, commit }: { holdMs: number; commit: boolean }): Promise<void> {
    await this.rest(atMs);
    if (this.stopping.signal.aborted) return;
    await this.connected(0, async (client) => {
      // Keys of its own: every writer of a shared one would wait for its lock.
      const key = `long-${this.count++}`;
      await client.query(`begin; ${this.sql(this.event(key))}`);
      await this.rest(holdMs);
      await client.query(`${this.sql(this.event(key))} ${commit ? 'commit' : 'rollback'}`);
    });
  }

  /** Each with a key of its own, and one more event of it afterwards: whether the first was overtaken can be seen. */
  private async crowd(atMs: number, transactions: number): Promise<void> {
    await this.rest(atMs);
    if (this.stopping.signal.aborted) return;
    const commitMs = performance.now() + CROWD_GATHERS_MS;
    const one = async (number: number): Promise<void> =>
      await this.connected(number, async (client) => {
        const event = (): string => this.sql({ ...this.event(key), aggregate: TYPES[0] });
        const key = `crowd-${this.count++}`;
        await client.query(`begin; ${event()}`);
        await this.rest(commitMs - performance.now());
        await client.query('commit');
        await client.query(event());
      });
    await Promise.all(Array.from({ length: transactions }, async (_, number) => await one(number)));
  }

  private async rest(ms: number): Promise<void> {
    if (ms > 1) await sleep(ms, undefined, { signal: this.stopping.signal }).catch(() => undefined);
  }

  private transaction(count: number): string {
    // In one order, or two writers would wait for each other's keys.
    const events = this.inKeyOrder(count).map((event) => {
      const sql = this.sql(event);
      if (this.random() >= this.load.savepoint) return sql;
      return `savepoint s; ${sql} ${this.random() < 0.5 ? 'rollback to s' : 'release s'};`;
    });
    const end = this.random() < this.load.rollback ? 'rollback' : 'commit';
    return `begin; ${events.join('\n')} ${end}`;
  }

  private burst(events: number): string {
    return `begin; ${this.inKeyOrder(events)
      .map((event) => this.sql(event))
      .join('\n')} commit`;
  }

  private large(bytes: number, poison: boolean): string {
    const fill = 'x'.repeat(bytes);
    const event = { ...this.event(poison ? `poison-${this.count}` : this.key()), poison };
    return this.sql({ ...event, payload: `{"big": "${fill}"}` });
  }

  private misdirected(): string {
    const key = `nowhere-${this.count}`;
    return this.sql({ ...this.event(key), aggregate: 'nowhere', poison: true });
  }

  private inKeyOrder(count: number): Event[] {
    const events = Array.from({ length: count }, () => this.event(this.key()));
    return events.sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : nameOf(a) > nameOf(b) ? 1 : 0));
  }

  private key(): string {
    const { keys, hot } = this.load;
    return `key-${Math.floor(this.random() * (this.random() < hot ? HOT_KEYS : keys))}`;
  }

  /** Numbers beyond a double, keys in no order, white space and letters beyond ASCII: what a parser would change. */
  private event(key: string): Event {
    const number = this.count++;
    const aggregate = TYPES[this.random() < 0.7 ? 0 : 1] ?? TYPES[0];
    const payload = `{"n":  9007199254740993${number}, "ünï": "✓ 𝄞", "a": [1.10, 1e2], "fill": "${'y'.repeat(this.random() * 400)}"}`;
    return { aggregate, key, type: 'Happened', trace: `t-${number}`, payload, poison: false };
  }

  private sql(event: Event): string {
    return emit(event, this.load.payloadType);
  }
}

function nameOf({ aggregate, key }: Event): string {
  return `${aggregate} ${key}`;
}
