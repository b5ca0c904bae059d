import type { Client } from 'pg';
import { isLockTimeout } from '../../postgres/lock-retry.ts';
import type { Config } from '../../config/config.ts';
import { qualified, quoteIdentifier } from '../../postgres/identifier.ts';
import { isUnmarked } from '../../postgres/undelivered.ts';
import { partitionState, readPartitionedTable, refusePooler } from './partition-catalog.ts';
import { endedPartitions, type EndedPartition, type Partition } from './partition-range.ts';

/** Without clean-up the whole partition is read to find a row that is not delivered. */
const CHECK_TIMEOUT_MS = 3_600_000;

/** `waiting`: a partition is half dropped, come again soon. */
export type PartitionStep =
  | { readonly kind: 'idle' | 'waiting' }
  | { readonly kind: 'dropped' | 'attached-again'; readonly name: string };

/** In the progress row from before a partition is detached until it is gone: whoever leads next goes on from there. */
interface Dropping {
  readonly oid: string;
  readonly name: string;
  readonly bound: string;
}

/**
 * Drops partitions in which everything is delivered or parked.
 *
 * detach concurrently → finalise where a reader was in the way → look again under a lock that keeps everybody out → drop,
 * or attach again when a transaction that was still open had written into it. No step waits for a lock that a writer
 * could queue behind: the parent is locked with SHARE UPDATE EXCLUSIVE at most, and the partition only when no statement
 * on the outbox can reach it any more. Each step leaves a state that the catalog and the progress row tell, so that a
 * crash between any two of them is continued.
 */
export class PartitionDropper {
  private readonly config: Config;
  private readonly retentionMs: number;
  private readonly table: string;
  private readonly progress: string;
  /** When the sequence was first seen beyond an empty partition: nothing else tells its age. */
  private readonly emptySince = new Map<string, number>();

  constructor(config: Config, retentionMs: number) {
    const { schema, table } = config.outbox;
    this.config = config;
    this.retentionMs = retentionMs;
    this.table = qualified(schema, table);
    this.progress = qualified(schema, 'outbox_relay_progress');
  }

  /** One partition at most. `client` waits for no lock longer than LOCK_TIMEOUT. */
  async step(client: Client): Promise<PartitionStep> {
    refusePooler(client);
    const dropping = await this.readDropping(client);
    if (dropping) return await this.goOn(client, dropping);
    const found = await this.findDelivered(client);
    if (!found) return { kind: 'idle' };
    const { oid, name, bound } = found;
    if (!(await this.begin(client, { oid, name, bound }))) return { kind: 'waiting' };
    const detached = await unlessLocked(
      client.query(`alter table ${this.table} detach partition ${name} concurrently`),
    );
    return detached ? await this.finish(client, { oid, name, bound }) : { kind: 'waiting' };
  }

  private async goOn(client: Client, dropping: Dropping): Promise<PartitionStep> {
    const state = await partitionState(client, this.table, dropping);
    if (state === 'detached') return await this.finish(client, dropping);
    if (state !== 'pending') {
      // Never detached, or gone: looked at afresh.
      await this.end(client, dropping);
      return { kind: 'waiting' };
    }
    // Waits for every older statement of the database; those after it do not see the partition.
    const finalised = await unlessLocked(
      client.query(`alter table ${this.table} detach partition ${dropping.name} finalize`),
    );
    return finalised ? await this.finish(client, dropping) : { kind: 'waiting' };
  }

  /** It belongs to nobody but us now. A row is found when its transaction was open while we looked the first time. */
  private async finish(client: Client, dropping: Dropping): Promise<PartitionStep> {
    const { name, bound } = dropping;
    const done = await unlessLocked(
      this.inTransaction(client, async () => {
        await client.query(`lock table ${name} in access exclusive mode`);
        const delivered = await this.isDelivered(client, name);
        await client.query(
          delivered ? `drop table ${name}` : `alter table ${this.table} attach partition ${name} ${bound}`,
        );
        await this.end(client, dropping);
        return delivered;
      }),
    );
    if (!done) return { kind: 'waiting' };
    return { kind: done.value ? 'dropped' : 'attached-again', name };
  }

  private async findDelivered(client: Client): Promise<Partition | undefined> {
    const table = await readPartitionedTable(client, this.config.outbox);
    for (const ended of endedPartitions(table.partitions, table)) {
      if (!(await this.isOldEnough(client, ended, table.databaseMs))) continue;
      if (await this.isDelivered(client, ended.partition.name)) return ended.partition;
    }
    return undefined;
  }

  private async isOldEnough(client: Client, ended: EndedPartition, databaseMs: number): Promise<boolean> {
    const { oid, name } = ended.partition;
    let endedMs = ended.endedMs;
    if (endedMs === undefined) {
      const { seq, createdAt } = this.config.outbox.columns;
      const { rows } = await client.query<{ ms: string }>(
        `select extract(epoch from ${quoteIdentifier(createdAt)}) * 1000 as ms from ${name}
          order by ${quoteIdentifier(seq)} desc limit 1`,
      );
      endedMs = rows[0] ? Number(rows[0].ms) : (this.emptySince.get(oid) ?? databaseMs);
      this.emptySince.set(oid, endedMs);
    }
    return databaseMs - endedMs >= this.retentionMs;
  }

  /** Rows of running transactions are not seen; they are looked for again when nobody can write them any more. */
  private async isDelivered(client: Client, name: string): Promise<boolean> {
    const { outbox, cleanup } = this.config;
    const left = {
      delete: `exists (select from ${name})`,
      mark: `exists (select from ${name} where ${isUnmarked(outbox)})`,
      // Several relays may read a table that none of them cleans up: all must be through with it.
      none: `exists (select from ${this.progress} g where g.outbox_table = $1 and (g.horizon is null or exists (
               select from ${name} where not pg_visible_in_snapshot(${quoteIdentifier(outbox.columns.xid)}, g.horizon::pg_snapshot))))`,
    }[cleanup];
    // The driver's own deadline is missing in its types for a single query.
    const query = {
      text: `select (${left})::text as undelivered`,
      values: cleanup === 'none' ? [`${outbox.schema}.${outbox.table}`] : [],
      query_timeout: CHECK_TIMEOUT_MS,
    };
    const { rows } = await client.query<{ undelivered: string }>(query);
    return rows[0]?.undelivered === 'false';
  }

  private async readDropping(client: Client): Promise<Dropping | undefined> {
    const { rows } = await client.query<{ dropping: string | null }>(
      `select dropping from ${this.progress} where slot_name = $1`,
      [this.config.slotName],
    );
    const text = rows[0]?.dropping;
    return text ? (JSON.parse(text) as Dropping) : undefined;
  }

  /** False when another one is noted: somebody else leads by now. */
  private async begin(client: Client, dropping: Dropping): Promise<boolean> {
    const { rowCount } = await client.query(
      `update ${this.progress} set dropping = $2 where slot_name = $1 and dropping is null`,
      [this.config.slotName, JSON.stringify(dropping)],
    );
    return rowCount === 1;
  }

  /** Not that of a successor. */
  private async end(client: Client, { oid }: Dropping): Promise<void> {
    await client.query(
      `update ${this.progress} set dropping = null where slot_name = $1 and dropping->>'oid' = $2`,
      [this.config.slotName, oid],
    );
  }

  private async inTransaction<T>(client: Client, action: () => Promise<T>): Promise<{ readonly value: T }> {
    await client.query('begin');
    try {
      const value = await action();
      await client.query('commit');
      return { value };
    } catch (error) {
      await client.query('rollback').catch(() => undefined);
      throw error;
    }
  }
}

async function unlessLocked<T>(attempt: Promise<T>): Promise<T | undefined> {
  return await attempt.catch((error: unknown) => {
    if (!isLockTimeout(error)) throw error;
    return undefined;
  });
}
