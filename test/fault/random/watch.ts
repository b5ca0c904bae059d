import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import type { Sample } from './checker.ts';
import type { Replica } from './fleet.ts';

const EVERY_MS = 250;
const LOOKS_A_SECOND = 4;
const STATEMENT_TIMEOUT_MS = 2_000;

const LOOK = `select (select id from outbox where delivered_at is null order by seq limit 1) as oldest,
  (select id from outbox where delivered_at is null order by seq desc limit 1) as newest,
  coalesce((select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) from pg_replication_slots where slot_name = $1), 0) as retained`;

/** Looks at database and relays from outside, four times a second, until stopped. */
export class Watch {
  readonly samples: Sample[] = [];
  private readonly url: string;
  private readonly slotName: string;
  private readonly replicas: readonly Replica[];
  private readonly stopping = new AbortController();
  private readonly running: Promise<void>;
  private client: Client | undefined;

  constructor(url: string, slotName: string, replicas: readonly Replica[]) {
    this.url = url;
    this.slotName = slotName;
    this.replicas = replicas;
    this.running = this.run();
  }

  /** In the last look and the one a second before, at every relay that answers, and one does. */
  get isWithoutLag(): boolean {
    const last = this.samples.slice(-LOOKS_A_SECOND).flatMap(({ relays }) => relays);
    const lags = last.flatMap(({ lagSeconds }) => (lagSeconds === undefined ? [] : [lagSeconds]));
    return lags.length >= LOOKS_A_SECOND && lags.every((lag) => lag === 0);
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await this.running;
    await this.client?.end().catch(() => undefined);
  }

  private async run(): Promise<void> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      // A database that is away for a moment has nothing to be compared with.
      await this.look().catch(async () => await this.disconnect());
      await sleep(EVERY_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  private async disconnect(): Promise<void> {
    await this.client?.end().catch(() => undefined);
    this.client = undefined;
  }

  private async look(): Promise<void> {
    const client = (this.client ??= await this.connect());
    const { rows } = await client.query<Record<'oldest' | 'newest', string | null> & { retained: string }>(
      LOOK,
      [this.slotName],
    );
    const atMs = Date.now();
    const relays = await Promise.all(this.replicas.map(async (replica) => await replica.sample()));
    const [row] = rows;
    this.samples.push({
      atMs,
      endedMs: Date.now(),
      oldestId: row?.oldest ?? undefined,
      newestId: row?.newest ?? undefined,
      retainedBytes: Number(row?.retained),
      relays,
    });
  }

  private async connect(): Promise<Client> {
    const client = new Client({
      connectionString: this.url,
      connectionTimeoutMillis: STATEMENT_TIMEOUT_MS,
      query_timeout: STATEMENT_TIMEOUT_MS,
    });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }
}
