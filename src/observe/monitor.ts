import type { Client } from 'pg';
import type { Config } from '../config/config.ts';
import { connect, disconnect } from '../postgres/connect.ts';
import { qualified, quoteIdentifier } from '../postgres/identifier.ts';
import { readOutboxTable } from '../postgres/outbox-table.ts';
import { isNumbered, rowKey } from '../postgres/row-key.ts';
import { isUndelivered } from '../postgres/undelivered.ts';
import { isGlimpse, lagSeconds, rowSinceMs, waitingSinceMs, type Looks } from './lag.ts';
import type { WalStatus } from './metrics.ts';
import type { Observer } from './observer.ts';
import { pause } from '../lifecycle/wait.ts';

const INTERVAL_MS = 1_000;
/** Up to here pending rows are counted each second; beyond it their number is estimated from `seq`, where they have one. */
const MAX_COUNTED = 10_000;

/** What the session knows and the monitor shows. */
export interface PipelineFacts {
  readonly oldestUnsettledCommitMs: number | undefined;
  readonly inFlightEvents: number;
  readonly inFlightBytes: number;
  /** Since when no stream runs here, monotonic; undefined while one does. */
  readonly streamGoneMs: number | undefined;
  /** This process publishes: it knows the commit times of what is in flight. */
  readonly leading: boolean;
}

/**
 * Asks the database once a second, on a connection of its own, for what no stream tells: rows that wait in the table,
 * what the slot retains, how many events are parked. Runs on leader and standby alike, and through every outage: when
 * there is no answer, the lag grows by itself.
 */
export class Monitor {
  private config: Config;
  private readonly observer: Observer;
  private readonly facts: () => PipelineFacts;
  private lastAnswerMs = performance.now();
  private oldest: { seq: string; firstSeenMs: number; createdMs: number | undefined } | undefined;
  private looks: Looks = { beforeMs: this.lastAnswerMs, lastMs: this.lastAnswerMs };
  private backlogSinceMs: number | undefined;
  private pending = 0;
  private hasCreatedAt = false;
  /** Somebody noticed it, and the progress row says so. */
  private deletedAtOnce = false;
  /** The last look of a standby. */
  private stoodByMs = Number.NEGATIVE_INFINITY;

  constructor(config: Config, observer: Observer, facts: () => PipelineFacts) {
    this.config = config;
    this.observer = observer;
    this.facts = facts;
    observer.metrics.onScrape(() => this.fillGauges());
  }

  /** Until the signal aborts; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const settings = { enable_seqscan: 'off' };
        const options = { applicationName: 'outbox-relay monitor', signal, settings };
        const client = await connect(this.config.database.connection(), options);
        try {
          await this.lookAtTable(client);
          await this.probeUntil(client, signal);
        } finally {
          await disconnect(client);
        }
      } catch (error) {
        // The session meets the same trouble and reports it; here it shows as lag.
        this.observer.log.debug('the probe of the database failed', { error });
        await pause(INTERVAL_MS, signal);
      }
    }
  }

  /** Age of the oldest committed event that is not settled, seconds, on the database's clock. */
  lagSeconds(): number {
    const nowMs = performance.now();
    const { clock } = this.observer;
    const at = (monotonicMs: number): number => clock.at(monotonicMs) ?? monotonicMs;
    return lagSeconds({
      oldestUnsettledCommitMs: this.facts().oldestUnsettledCommitMs,
      tableSinceMs: this.oldestSinceMs(at),
      streamGoneMs: this.streamGoneMs(at),
      lastAnswerMs: at(this.lastAnswerMs),
      nowMs: at(nowMs),
    });
  }

  /** While another relay led, the stream was its own. */
  private streamGoneMs(at: (monotonicMs: number) => number): number | undefined {
    const { streamGoneMs } = this.facts();
    const { deletedAtOnce = this.deletedAtOnce, source } = this.config;
    if (streamGoneMs === undefined || !deletedAtOnce || source === 'polling') return undefined;
    if (this.observer.mode === 'standby') return undefined;
    return at(Math.max(streamGoneMs, this.stoodByMs));
  }

  private oldestSinceMs(at: (monotonicMs: number) => number): number | undefined {
    if (!this.oldest) return undefined;
    const { firstSeenMs, createdMs } = this.oldest;
    const backlogSinceMs = at(this.backlogSinceMs ?? firstSeenMs);
    const { leading, oldestUnsettledCommitMs } = this.facts();
    const role = leading ? (oldestUnsettledCommitMs === undefined ? 'empty' : 'holds') : 'standby';
    const sinceMs = rowSinceMs({ seenMs: at(firstSeenMs), createdMs, backlogSinceMs }, role);
    const looks = { beforeMs: at(this.looks.beforeMs), lastMs: at(this.looks.lastMs) };
    return isGlimpse(sinceMs, looks, at(performance.now())) ? undefined : sinceMs;
  }

  get pendingEvents(): number {
    return Math.max(this.pending, this.facts().inFlightEvents);
  }

  /** A table that was not made by `migrate` may lack columns. */
  private async lookAtTable(client: Client): Promise<void> {
    const { outbox } = this.config;
    const table = await readOutboxTable(client, outbox);
    // A time without a zone is that of whoever wrote it: no age can be told from it.
    this.hasCreatedAt = table?.columns.get(outbox.columns.createdAt) === 'timestamp with time zone';
    const numbered = table === undefined || isNumbered(outbox, table);
    this.config = { ...this.config, outbox: { ...outbox, numbered } };
  }

  private async probeUntil(client: Client, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const sentMs = performance.now();
      await this.probe(client, sentMs);
      const restMs = Math.max(10, INTERVAL_MS - (performance.now() - sentMs));
      await pause(restMs, signal);
    }
  }

  private async probe(client: Client, sentMs: number): Promise<void> {
    const { rows } = await client.query<Record<string, string | null>>(PROBE, [this.config.slotName]);
    const row = rows[0] ?? {};
    const answeredMs = performance.now();
    this.lastAnswerMs = answeredMs;
    if (this.observer.mode === 'standby') this.stoodByMs = answeredMs;
    this.observer.clock.observe(Number(row['now_ms']), sentMs, answeredMs);
    const { metrics } = this.observer;
    metrics.lagBytes.set(Math.max(0, Number(row['lag_bytes'] ?? 0)));
    metrics.slotRetainedBytes.set(Math.max(0, Number(row['retained_bytes'] ?? 0)));
    metrics.setSlotWalStatus((row['wal_status'] ?? 'missing') as WalStatus);
    await this.probeTable(client, answeredMs);
  }

  /** Rows that stay the oldest from one probe to the next: the stream has not brought them, or cannot. */
  private async probeTable(client: Client, nowMs: number): Promise<void> {
    const { rows } = await client.query<Record<string, string | null>>(this.tableProbe(), [
      this.config.slotName,
    ]);
    const row = rows[0] ?? {};
    this.observer.metrics.deadLetters.set(Number(row['dead_letters'] ?? 0));
    this.deletedAtOnce = row['deleted_at_once'] === 'true';
    const seq = row['oldest_seq'] ?? undefined;
    const sinceMs = waitingSinceMs(this.looks.lastMs, nowMs);
    this.backlogSinceMs = seq === undefined ? undefined : (this.backlogSinceMs ?? sinceMs);
    if (seq === undefined) this.oldest = undefined;
    else if (this.oldest?.seq !== seq) {
      const createdMs = Number(row['oldest_ms'] ?? Number.NaN);
      this.oldest = {
        seq,
        firstSeenMs: sinceMs,
        createdMs: Number.isFinite(createdMs) ? createdMs : undefined,
      };
    }
    this.looks = { beforeMs: this.looks.lastMs, lastMs: nowMs };
    const counted = Number(row['counted'] ?? 0);
    this.pending = Number(row['estimated'] ?? counted);
  }

  private tableProbe(): string {
    const { outbox, cleanup } = this.config;
    const table = qualified(outbox.schema, outbox.table);
    const deadLetters = `(select count(*) from ${qualified(outbox.schema, 'outbox_relay_dead_letters')} where slot_name = $1) as dead_letters`;
    const { seq, order } = rowKey(outbox);
    const created = this.hasCreatedAt
      ? `o.${quoteIdentifier(outbox.columns.createdAt)}`
      : 'null::timestamptz';
    // Without clean-up nothing in the table tells a delivered row from another; then the progress row does, roughly.
    const progress = qualified(outbox.schema, 'outbox_relay_progress');
    const settled = `(select coalesce(max(settled_seq), -1) from ${progress} where slot_name = $1)`;
    const deletedAtOnce = `(select deleted_at_once::text from ${progress} where slot_name = $1) as deleted_at_once`;
    const waiting =
      cleanup === 'none' ? `where ${seq} > ${settled}` : `where ${isUndelivered(outbox, cleanup)}`;
    const newest = `(select ${seq} from ${table} o ${waiting} order by ${seq} desc limit 1)`;
    // One walk along the index: between two vacuums it passes entries of every row that was delivered meanwhile.
    return `with waiting as materialized (
        select ${seq} as seq, ${created} as created from ${table} o ${waiting} order by ${order} limit ${MAX_COUNTED}),
      counted as (select count(*) as rows, ${outbox.numbered ? 'min(seq)' : '(select seq from waiting limit 1)'} as oldest_seq from waiting)
      select ${deadLetters}, ${deletedAtOnce}, c.rows as counted, c.oldest_seq,
        (select extract(epoch from created) * 1000 from waiting w where w.seq = c.oldest_seq limit 1) as oldest_ms,
        case when c.rows = ${MAX_COUNTED} then ${outbox.numbered ? `${newest} - c.oldest_seq + 1` : `(select count(*) from ${table})`} end as estimated
      from counted c`;
  }

  private fillGauges(): void {
    const { metrics } = this.observer;
    const facts = this.facts();
    metrics.lagSeconds.set(this.lagSeconds());
    metrics.pendingEvents.set(this.pendingEvents);
    metrics.inFlightEvents.set(facts.inFlightEvents);
    metrics.inFlightBytes.set(facts.inFlightBytes);
  }
}

const PROBE = `select extract(epoch from clock_timestamp()) * 1000 as now_ms, s.wal_status,
  pg_wal_lsn_diff(l.lsn, s.confirmed_flush_lsn) as lag_bytes, pg_wal_lsn_diff(l.lsn, s.restart_lsn) as retained_bytes
  from (select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as lsn) l
  left join pg_replication_slots s on s.slot_name = $1`;
