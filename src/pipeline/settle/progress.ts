import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { RelayError } from '../../errors/errors.ts';
import { qualified, quoteIdentifier, quoteLiteral } from '../../postgres/identifier.ts';
import { rowKey } from '../../postgres/row-key.ts';
import { formatLsn, parseLsn } from '../../postgres/lsn.ts';
import { LOG_ENDS, parseLogEnds, type LogEnds } from '../../postgres/log-position.ts';
import { parseSnapshot } from '../../postgres/snapshot.ts';
import { isUnmarked } from '../../postgres/undelivered.ts';
import { deadLetterOf } from './dead-letters.ts';
import type { LedSlot } from '../capture/streaming/slot.ts';
import { toRemoval } from './removal.ts';
import { flattenRuns, unflattenRuns, type Run } from './settled-runs.ts';
import type { Write, Written } from './settlement.ts';

/** The one row that knows what is durable. */
export interface Progress {
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** Where the slot began: a slot of the same name that was made again begins later. */
  readonly slotCreatedLsn: bigint;
  readonly handover: Phase;
  readonly snapshot: string | undefined;
  readonly horizon: string | undefined;
  readonly tableSeq: number;
  readonly durableLsn: bigint;
  readonly beyond: readonly Run[];
}

/**
 * `polling`: the table alone, no position: a row that is left is undelivered. `table`: what a slot's snapshot sees comes
 * from the table; the position is a `seq`. `complete`: the stream brings everything new; the position is an LSN.
 */
export type Phase = 'polling' | 'table' | 'complete';

/** What a write notes. Every parameter is named in each, or the server could not tell its type. */
const POSITIONS: Readonly<Record<Phase, string>> = {
  polling: 'table_seq = least(-1, $3::bigint), beyond = $4::bigint[]',
  // What was polled before the hand-over stays: the stream behind it will bring it.
  table: 'table_seq = $3::bigint, beyond = beyond || $4::bigint[]',
  complete: 'durable_lsn = $3::pg_lsn, beyond = coalesce($4::bigint[], beyond)',
};

/** What is still true when a statement arrives late, by a connection that was given up and had sent it before. */
const NOT_BACK: Readonly<Record<Phase, string>> = {
  polling: 'true',
  table: 'true',
  complete: 'durable_lsn <= $3::pg_lsn',
};

/** No run is so long; the distance of a row that no write is about can be anything, and must not fail the statement. */
const BEYOND_EVERY_RUN = 2_000_000_000;

interface WriteKind {
  readonly parking: boolean;
  readonly shared: boolean;
  /** The events lie far apart. */
  readonly scattered: boolean;
}

/** Reads and writes the progress row, in one transaction with the clean-up. */
export class ProgressStore {
  private readonly config: Config;
  /** Of the lease: a write of an earlier leader, however late, changes nothing. */
  private readonly token: string;
  private readonly progress: string;

  constructor(config: Config, token: bigint) {
    this.config = config;
    this.token = token.toString();
    this.progress = qualified(config.outbox.schema, 'outbox_relay_progress');
  }

  /** Commands about the slot do nothing once another relay leads, however late they arrive. */
  get slot(): LedSlot {
    const lease = qualified(this.config.outbox.schema, 'outbox_relay_lease');
    const { slotName } = this.config;
    const whileLeading = `exists (select from ${lease} l where l.slot_name = ${quoteLiteral(slotName)} and l.token = ${this.token})`;
    return { slotName, whileLeading };
  }

  /**
   * The leader of this token has begun: from here on nothing that an earlier one writes counts. Throws `stop` where the
   * row speaks of another table: its position says nothing about ours, and would pass over events of both.
   */
  async claim(client: Client): Promise<void> {
    const { outbox, slotName } = this.config;
    const table = `${outbox.schema}.${outbox.table}`;
    const { rowCount } = await client.query(
      `insert into ${this.progress} as p (slot_name, outbox_table, lease_token) values ($1, $2, $3)
       on conflict (slot_name) do update set lease_token = excluded.lease_token
        where p.lease_token <= excluded.lease_token and p.outbox_table = excluded.outbox_table`,
      [slotName, table, this.token],
    );
    if (rowCount === 1) return;
    const { rows } = await client.query<{ other: string }>(
      `select outbox_table as other from ${this.progress} where slot_name = $1 and outbox_table <> $2`,
      [slotName, table],
    );
    throw rows[0] === undefined ? progressLost() : this.otherTable(rows[0].other, table);
  }

  private otherTable(other: string, table: string): RelayError {
    const { slotName } = this.config;
    const where = `where slot_name = ${quoteLiteral(slotName)}`;
    const message = `SLOT_NAME ${slotName} belongs to the outbox ${other}, and this relay is for ${table}`;
    return new RelayError('stop', 'slot-of-other-table', message, {
      advice:
        'Give each outbox a SLOT_NAME of its own. If the table was renamed: ' +
        `update ${this.progress} set outbox_table = ${quoteLiteral(table)} ${where};`,
    });
  }

  async read(client: Client): Promise<Progress | undefined> {
    const { rows } = await client.query<Record<string, string | null>>(
      `select system_identifier, timeline, slot_created_lsn, handover, snapshot, horizon, table_seq, durable_lsn,
              array_to_string(beyond, ',') as beyond
         from ${this.progress} where slot_name = $1`,
      [this.config.slotName],
    );
    const row = rows[0];
    if (!row?.['slot_created_lsn'] || !row['durable_lsn'] || !row['handover']) return undefined;
    return {
      systemIdentifier: row['system_identifier'] ?? '',
      timeline: Number(row['timeline']),
      slotCreatedLsn: parseLsn(row['slot_created_lsn']),
      handover: row['handover'] as Phase,
      snapshot: row['snapshot'] ?? undefined,
      horizon: row['horizon'] ?? undefined,
      tableSeq: Number(row['table_seq'] ?? 0),
      durableLsn: parseLsn(row['durable_lsn']),
      beyond: unflattenRuns(row['beyond'] ? row['beyond'].split(',').map(Number) : []),
    };
  }

  /** The table alone is the truth from here on: whatever slot exists is not trusted any more. */
  async beginPolling(client: Client): Promise<Progress> {
    await this.mustUpdate(
      client,
      `system_identifier = null, timeline = null, slot_created_lsn = '0/0', handover = 'polling', snapshot = null,
       table_seq = -1, durable_lsn = '0/0', beyond = '{}'`,
    );
    return (await this.read(client)) as Progress;
  }

  /** Noticed earlier: the application deletes its rows at once, so that the table is not the truth. */
  async isDeletedAtOnce(client: Client): Promise<boolean> {
    const { rows } = await client.query<{ noticed: string }>(
      `select deleted_at_once::text as noticed from ${this.progress} where slot_name = $1`,
      [this.config.slotName],
    );
    return rows[0]?.noticed === 'true';
  }

  async noteDeletedAtOnce(client: Client): Promise<void> {
    await this.mustUpdate(client, 'deleted_at_once = true');
  }

  /** Changes nothing. A commit that waits for the disk flushes everything in the log before it. */
  async touch(client: Client): Promise<void> {
    await this.mustUpdate(client, 'lease_token = lease_token');
  }

  /**
   * A hand-over begins: the slot exists, and what `snapshot` sees is to be delivered from the table. `beyond`: polled
   * already, and not visible to the snapshot, so that the stream will bring it again.
   */
  async beginHandover(client: Client, progress: Progress): Promise<void> {
    await this.mustUpdate(
      client,
      `system_identifier = $2, timeline = $3, slot_created_lsn = $4, handover = 'table', snapshot = $5, horizon = $6,
       table_seq = -1, durable_lsn = $4, beyond = $7::bigint[]`,
      [
        progress.systemIdentifier,
        progress.timeline,
        formatLsn(progress.slotCreatedLsn),
        progress.snapshot,
        progress.horizon ?? null,
        toArrayText(flattenRuns(progress.beyond)),
      ],
    );
  }

  /** The table pass is over: from here the stream alone brings events. */
  async completeHandover(client: Client, slotCreatedLsn: bigint): Promise<void> {
    await this.mustUpdateSlot(
      client,
      `handover = 'complete', horizon = coalesce(snapshot, horizon), snapshot = null`,
      slotCreatedLsn,
    );
  }

  /** Everything that this snapshot sees is delivered. */
  async moveHorizon(client: Client, slotCreatedLsn: bigint, horizon: string): Promise<void> {
    await this.mustUpdateSlot(client, 'horizon = $3', slotCreatedLsn, [horizon]);
  }

  /**
   * Removes the settled rows, parks the refused ones and notes the progress: one statement, so one transaction.
   * Repeating it after an unknown end is harmless. `shared`: the write is not on disk when it returns; `logEnds` tell of
   * the writes before it.
   */
  async write(
    client: Client,
    write: Write,
    phase: Phase,
    slotCreatedLsn: bigint,
    shared = false,
  ): Promise<Written & { readonly logEnds: LogEnds }> {
    const parked = write.settled.filter((settled) => settled.parked && !settled.parkedInDatabase);
    const { cleanup, outbox } = this.config;
    const { scattered, ...removal } = toRemoval(cleanup === 'none' ? [] : write.removable, outbox.numbered);
    const kind = { parking: parked.length > 0, shared, scattered };
    const { rows } = await client.query<{
      noted: string;
      removed: string;
      snapshot: string;
      inserted: string;
      flushed: string;
    }>({
      // A name: parsed and planned once for the connection.
      name: `settle-${phase}-${Object.values(kind).map(Number).join('')}`,
      text: this.statement(phase, kind),
      values: [
        this.config.slotName,
        formatLsn(slotCreatedLsn),
        phase === 'complete' ? formatLsn(write.position) : write.position.toString(),
        phase !== 'complete' ? '{}' : write.beyond && toArrayText(flattenRuns(write.beyond)),
        ...[removal.firsts, removal.lasts, removal.offsets, removal.xids].map(toArrayText),
        // Bounds of all runs: no more of the index is read than between them. Where nothing is removed: what is settled.
        removal.firsts[0] ?? 0,
        cleanup === 'none' ? greatestSeq(write) : (removal.lasts.at(-1) ?? -1),
        ...(parked.length > 0
          ? [JSON.stringify(parked.map((settled) => deadLetterOf(this.config, settled)))]
          : []),
      ],
    });
    const row = rows[0];
    if (row?.noted !== '1') throw progressLost();
    // Without removal there is nothing to miss; and a row without a transaction id was polled, so that it was visible.
    const removed = cleanup === 'none' || !outbox.numbered ? Infinity : Number(row.removed);
    return { removed, snapshot: parseSnapshot(row.snapshot), logEnds: parseLogEnds(row) };
  }

  private statement(phase: Phase, { parking, shared, scattered }: WriteKind): string {
    const position = POSITIONS[phase];
    const { outbox, cleanup } = this.config;
    const note = cleanup === 'none' ? ', settled_seq = greatest(settled_seq, $10::bigint)' : '';
    const deadLetters = qualified(outbox.schema, 'outbox_relay_dead_letters');
    const parked = `parked as (
      insert into ${deadLetters} (slot_name, event_id, seq, xid, destination, key, code, reason, attempts, "row")
      select $1, d.event_id, d.seq, d.xid, d.destination, d.key, d.code, d.reason, d.attempts, d."row"
        from noted, json_to_recordset($11::json) as d(event_id text, seq bigint, xid bigint, destination text,
             key text, code text, reason text, attempts int, "row" jsonb)
      on conflict do nothing),`;
    return `with noted as (
      update ${this.progress} set ${position}${note}, updated_at = clock_timestamp()
       where slot_name = $1 and slot_created_lsn = $2::pg_lsn and handover = '${phase}' and lease_token = ${this.token}
         and ${NOT_BACK[phase]}
      returning 1),
      ${parking ? parked : ''}
      removed as (${this.removal(scattered)})
      select (select count(*) from noted) as noted, (select count(*) from removed) as removed,
             pg_current_snapshot()::text as snapshot, ${LOG_ENDS}${shared ? `, set_config('synchronous_commit', 'off', true)` : ''}`;
  }

  private removal(scattered: boolean): string {
    const { cleanup, outbox } = this.config;
    if (cleanup === 'none')
      return `select 1 where false and ($5::bigint[], $6::bigint[], $7::int[], $8::xid8[], $9::bigint, $10::bigint) is null`;
    const table = qualified(outbox.schema, outbox.table);
    const { seq, xid, among } = rowKey(outbox);
    // A search in the sorted runs, not a join: for many runs planners have chosen to compare every row with every run.
    const run = `width_bucket(${seq}, $5::bigint[])`;
    // What lies between scattered events may be a backlog of millions, or what an old snapshot keeps from being vacuumed.
    const settled = `${scattered ? `${among('$5::bigint[]')} and ` : ''}${seq} between $9::bigint and $10::bigint and ${seq} <= ($6::bigint[])[${run}]
         and ${xid} = ($8::xid8[])[($7::int[])[${run}] + least(${seq} - ($5::bigint[])[${run}], ${BEYOND_EVERY_RUN})::int]`;
    if (cleanup === 'delete') return `delete from ${table} o using noted where ${settled} returning 1`;
    const delivered = quoteIdentifier(outbox.columns.deliveredAt);
    return `update ${table} o set ${delivered} = clock_timestamp() from noted
             where ${settled} and ${isUnmarked(outbox)} returning 1`;
  }

  private async mustUpdateSlot(
    client: Client,
    set: string,
    slotCreatedLsn: bigint,
    values: unknown[] = [],
  ): Promise<void> {
    const where = 'slot_created_lsn = $2::pg_lsn';
    await this.mustUpdate(client, set, [formatLsn(slotCreatedLsn), ...values], where);
  }

  private async mustUpdate(
    client: Client,
    set: string,
    values: unknown[] = [],
    where = 'true',
  ): Promise<void> {
    const { rowCount } = await client.query(
      `update ${this.progress} set ${set}, updated_at = clock_timestamp()
        where slot_name = $1 and lease_token = ${this.token} and ${where}`,
      [this.config.slotName, ...values],
    );
    if (rowCount !== 1) throw progressLost();
  }
}

function greatestSeq({ settled }: Write): number {
  return settled.reduce((greatest, { event }) => Math.max(greatest, event.seq), -1);
}

/** The driver would quote each of the numbers. */
function toArrayText(numbers: readonly number[]): string {
  return `{${numbers.join()}}`;
}

function progressLost(): RelayError {
  return new RelayError(
    'retry',
    'progress-lost',
    'the progress row of this slot was changed by somebody else',
    {
      advice:
        'Another relay with the same SLOT_NAME took over, or the row was edited; the relay looks at it again.',
    },
  );
}
