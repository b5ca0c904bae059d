import type { Client } from 'pg';
import type { OutboxConfig } from '../../config/config.ts';
import { RelayError } from '../../errors/errors.ts';
import { qualified } from '../../postgres/identifier.ts';
import { readOutboxTable } from '../../postgres/outbox-table.ts';
import { isPooled } from '../../postgres/pooler.ts';
import { partitionKey, type Partition, type PartitionKey } from './partition-range.ts';

/** Longest wait for a lock; what is not got is tried again by a later step. */
export const LOCK_TIMEOUT = '50ms';

export interface PartitionedTable {
  readonly key: PartitionKey;
  readonly databaseMs: number;
  readonly lastSeq: number;
  readonly partitions: readonly Partition[];
}

/**
 * Through a pooler every statement is a transaction, and DETACH CONCURRENTLY must not be in one; nor would a lock_timeout
 * that is set outside of one stay with our connection. Throws RelayError.
 */
export function refusePooler(client: Client): void {
  if (!isPooled(client)) return;
  throw new RelayError('retry', 'partition-pooler', 'partitions are not dropped through a pooler', {
    advice: 'Point DATABASE_URL to the server itself, or drop partitions by other means.',
  });
}

/** Throws RelayError when none of its partitions can be dropped. */
export async function readPartitionedTable(client: Client, outbox: OutboxConfig): Promise<PartitionedTable> {
  const table = qualified(outbox.schema, outbox.table);
  const { rows } = await client.query<Record<string, string | null>>(
    `select p.partstrat as strategy, p.partnatts as columns, (p.partdefid <> 0)::text as has_default,
            o.opcintype::regtype::text as key_type, a.attname as key_column,
            extract(epoch from clock_timestamp()) * 1000 as now_ms
       from pg_partitioned_table p join pg_opclass o on o.oid = p.partclass[0]
       left join pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
      where p.partrelid = to_regclass($1)`,
    [table],
  );
  const row = rows[0];
  const key =
    row &&
    partitionKey({
      strategy: row['strategy'] ?? '',
      columns: Number(row['columns']),
      keyType: row['key_type'] ?? '',
      keyIsSeq: row['key_column'] === outbox.columns.seq,
    });
  if (!key) throw notRanged(table);
  if (row['has_default'] === 'true') throw hasDefault(table);
  const partitions = await readPartitions(client, table);
  const pending = partitions.find(({ detachPending }) => detachPending);
  if (pending) throw detachUnderWay(table, pending.name);
  return {
    key,
    databaseMs: Number(row['now_ms']),
    lastSeq: key === 'seq' ? await readLastSeq(client, outbox) : 0,
    partitions,
  };
}

async function readPartitions(client: Client, table: string): Promise<Partition[]> {
  const { rows } = await client.query<Record<'oid' | 'name' | 'bound' | 'pending', string>>(
    `select c.oid, format('%I.%I', n.nspname, c.relname) as name, pg_get_expr(c.relpartbound, c.oid) as bound,
            i.inhdetachpending::text as pending
       from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace
      where i.inhparent = to_regclass($1) and c.relkind in ('r', 'p')`,
    [table],
  );
  return rows.map(({ oid, name, bound, pending }) => ({
    oid,
    name,
    bound,
    detachPending: pending === 'true',
  }));
}

/** 0 where no sequence numbers the rows, or sessions draw numbers in advance: then no range is ever behind it. */
async function readLastSeq(client: Client, outbox: OutboxConfig): Promise<number> {
  const sequence = (await readOutboxTable(client, outbox))?.sequence;
  if (!sequence) return 0;
  const { rows } = await client.query<{ last: string }>(
    `select last_value as last from ${qualified(...sequence)}
      where exists (select from pg_sequence where seqrelid = $1::regclass and seqcache = 1)`,
    [qualified(...sequence)],
  );
  return Number(rows[0]?.last ?? 0);
}

/** `other`: gone, or another table by now: an oid alone could have been given out again. */
export async function partitionState(
  client: Client,
  table: string,
  { oid, name }: { readonly oid: string; readonly name: string },
): Promise<'attached' | 'pending' | 'detached' | 'other'> {
  const { rows } = await client.query<{ parent: string | null; pending: string | null }>(
    `select (i.inhparent = to_regclass($3))::text as parent, i.inhdetachpending::text as pending
       from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_inherits i on i.inhrelid = c.oid
      where c.oid = $1 and format('%I.%I', n.nspname, c.relname) = $2 and c.relkind in ('r', 'p')`,
    [oid, name, table],
  );
  const row = rows[0];
  if (!row || row.parent === 'false') return 'other';
  if (row.parent === null) return 'detached';
  return row.pending === 'true' ? 'pending' : 'attached';
}

function notRanged(table: string): RelayError {
  return new RelayError(
    'retry',
    'partition-key',
    `no partition of ${table} is dropped: nothing tells when it ends`,
    {
      advice: 'Partition by range of one column, a time or seq; or leave PARTITION_RETENTION out.',
    },
  );
}

function hasDefault(table: string): RelayError {
  return new RelayError(
    'retry',
    'partition-default',
    `${table} has a default partition, and none can be detached beside it without a lock that stops writers`,
    {
      advice:
        'Detach the default partition (make the others in time instead), or leave PARTITION_RETENTION out.',
    },
  );
}

/** PostgreSQL allows one at a time. */
function detachUnderWay(table: string, name: string): RelayError {
  return new RelayError(
    'retry',
    'partition-pending',
    `somebody else is detaching ${name}, and that has not ended`,
    {
      advice: `If it was interrupted: ALTER TABLE ${table} DETACH PARTITION ${name} FINALIZE;`,
    },
  );
}
