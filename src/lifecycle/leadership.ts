import type { Client } from 'pg';
import type { Config } from '../config/config.ts';
import { connect, disconnect } from '../postgres/connect.ts';
import { qualified } from '../postgres/identifier.ts';
import { isProvenDead, nameOfThisProcess } from './holder.ts';
import { Lease, LeaseWatch, readClocks, type LeaseRow } from './lease.ts';
import { pause, within } from './wait.ts';

/** How often who waits looks at the lease, and who holds it renews it. */
const LOOK_MS = 250;
const RENEW_MS = 750;
/** An answer that comes later is of no use: the connection is opened anew. */
const ANSWER_DEADLINE_MS = 1_500;
const RECONNECT_MS = 250;
const OPEN_DEADLINE_MS = 2 * ANSWER_DEADLINE_MS;

export interface LeadershipOptions {
  readonly config: Config;
  /** Another process publishes. */
  readonly onStandby: () => void;
  /** The lease holds, perhaps after it had lapsed: what waits may be sent. */
  readonly onRenewed: () => void;
  /** It could not be renewed, and is tried again; once it has ended, nothing is sent. */
  readonly onUnrenewed: (error: unknown) => void;
  /** Another process took it. */
  readonly onLost: () => void;
}

/**
 * Holds the lease that lets one process publish for a slot: a row, so that it works through a pooler, on a connection
 * of its own, so that no slow statement delays a renewal.
 */
export class Leadership {
  private readonly options: LeadershipOptions;
  private readonly table: string;
  /** It remembers the token when somebody removes the row of the lease. */
  private readonly progress: string;
  private readonly name = nameOfThisProcess();
  private client: Client | undefined;
  private lease: Lease | undefined;
  private renewing: Promise<void> | undefined;
  private takeUnanswered = false;
  private over = new AbortController();

  constructor(options: LeadershipOptions) {
    this.options = options;
    this.table = qualified(options.config.outbox.schema, 'outbox_relay_lease');
    this.progress = qualified(options.config.outbox.schema, 'outbox_relay_progress');
  }

  /**
   * Resolves with the lease once it is ours, with undefined when the signal aborts first. Rejects with the error of the
   * database; to be called again then.
   */
  async acquire(signal: AbortSignal): Promise<Lease | undefined> {
    const watch = new LeaseWatch();
    let told = false;
    while (!signal.aborted) {
      const row = await this.ask(signal, (client) => this.read(client));
      const waitMs = this.isFree(row) ? 0 : watch.waitMs(row, performance.now());
      const lease = waitMs === 0 ? await this.take(signal, row) : undefined;
      if (lease) return this.hold(lease);
      if (!told && waitMs > 0) this.options.onStandby();
      told ||= waitMs > 0;
      await pause(Math.min(LOOK_MS, Math.max(1, waitMs)), signal);
    }
    return undefined;
  }

  /** Gives it back, so that the next one need not wait, and closes the connection. Never rejects. Idempotent. */
  async release(): Promise<void> {
    const { lease } = this;
    this.over.abort();
    await this.renewing;
    this.lease = undefined;
    const held = lease?.ended === false;
    // Also without a connection: nobody renews it from here on.
    lease?.end();
    const { client } = this;
    if (lease && held && client) {
      await answered(
        client.query(`update ${this.table} set holder = null where slot_name = $1 and token = $2`, [
          this.options.config.slotName,
          lease.token.toString(),
        ]),
      ).catch(() => undefined);
    }
    await this.drop();
  }

  /** Its own name counts only when a take was not answered: otherwise it is of a lease that it lost. */
  private isFree(row: LeaseRow | undefined): boolean {
    if (typeof row?.holder !== 'string') return false;
    return row.holder === this.name ? this.takeUnanswered : isProvenDead(row.holder);
  }

  private hold(lease: Lease): Lease {
    this.lease = lease;
    this.over = new AbortController();
    this.renewing = this.renew(lease, this.over.signal);
    return lease;
  }

  /** Also through an outage of the database, however long: nobody else can take the lease meanwhile either. */
  private async renew(lease: Lease, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(RENEW_MS, signal);
      if (signal.aborted) return;
      const sent = readClocks();
      const renewed = await this.ask(signal, (client) => this.prolong(client, lease)).catch(
        (error: unknown) => {
          if (!signal.aborted) this.options.onUnrenewed(error);
          return undefined;
        },
      );
      if (renewed === undefined) continue;
      if (!renewed) {
        lease.end();
        this.options.onLost();
        return;
      }
      lease.renewed(sent);
      // Each time: whether it lapsed for a moment in between, nobody noticed.
      this.options.onRenewed();
    }
  }

  private async read(client: Client): Promise<LeaseRow | undefined> {
    const { rows } = await client.query<Record<string, string | null>>(
      `select holder, token, renewed_at from ${this.table} where slot_name = $1`,
      [this.options.config.slotName],
    );
    const [row] = rows;
    if (!row) return undefined;
    return {
      holder: row['holder'] ?? null,
      token: BigInt(row['token'] ?? 0),
      renewedAt: row['renewed_at'] ?? null,
    };
  }

  /** Only if nothing happened to the row since it was read. */
  private async take(signal: AbortSignal, seen: LeaseRow | undefined): Promise<Lease | undefined> {
    const sent = readClocks();
    this.takeUnanswered = true;
    const { rows } = await this.ask(signal, (client) =>
      client.query<{ token: string }>(
        `insert into ${this.table} as l (slot_name, holder, token, acquired_at, renewed_at)
         values ($1, $2, 1 + coalesce((select lease_token from ${this.progress} where slot_name = $1), 0),
                clock_timestamp(), clock_timestamp())
         on conflict (slot_name) do update set holder = excluded.holder, token = l.token + 1,
                acquired_at = excluded.acquired_at, renewed_at = excluded.renewed_at
          where l.token = $3 and l.holder is not distinct from $4 and l.renewed_at is not distinct from $5::timestamptz
         returning token`,
        [
          this.options.config.slotName,
          this.name,
          (seen?.token ?? 0n).toString(),
          seen?.holder ?? null,
          seen?.renewedAt ?? null,
        ],
      ),
    );
    this.takeUnanswered = false;
    return rows[0] ? new Lease(BigInt(rows[0].token), sent) : undefined;
  }

  private async prolong(client: Client, lease: Lease): Promise<boolean> {
    const { rowCount } = await client.query(
      `update ${this.table} set renewed_at = clock_timestamp() where slot_name = $1 and token = $2 and holder = $3`,
      [this.options.config.slotName, lease.token.toString(), this.name],
    );
    return rowCount === 1;
  }

  /** On the open connection, or on a new one; one that failed or does not answer in time is not used again. */
  private async ask<T>(signal: AbortSignal, question: (client: Client) => Promise<T>): Promise<T> {
    try {
      this.client ??= await answered(this.open(signal), OPEN_DEADLINE_MS);
      return await answered(question(this.client));
    } catch (error) {
      await this.drop();
      // A server that refuses at once would be asked without a pause.
      await pause(RECONNECT_MS, signal);
      throw error;
    }
  }

  /** The connection outlives the signal, to renew while drained and to give back. */
  private async open(signal: AbortSignal): Promise<Client> {
    const connection = this.options.config.database.connection();
    const connectTimeoutMs = Math.min(connection.connectTimeoutMs, OPEN_DEADLINE_MS);
    return await connect(
      { ...connection, connectTimeoutMs },
      {
        applicationName: 'outbox-relay lease',
        signal: new AbortController().signal,
        // An attempt that is given up must not bring a connection later, which nobody would close.
        attempt: AbortSignal.any([signal, AbortSignal.timeout(OPEN_DEADLINE_MS)]),
        // On the local disk: a standby that is away would hold up every renewal, and a crash take back who leads.
        settings: { synchronous_commit: 'local' },
      },
    );
  }

  private async drop(): Promise<void> {
    const { client } = this;
    this.client = undefined;
    if (client) await disconnect(client, 0);
  }
}

async function answered<T>(answer: Promise<T>, deadlineMs = ANSWER_DEADLINE_MS): Promise<T> {
  return await within(answer, deadlineMs, () => {
    throw Object.assign(new Error('the lease was not answered in time'), { code: 'ETIMEDOUT' });
  });
}
