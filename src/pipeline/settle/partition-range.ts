/** What a table is partitioned by, as far as it tells when a partition is complete. */
export type PartitionKey = 'time' | 'seq';

export interface Partition {
  readonly oid: string;
  /** Qualified and quoted. */
  readonly name: string;
  /** As `pg_get_expr` prints it, in UTC. */
  readonly bound: string;
  readonly detachPending: boolean;
}

/** One whose range is behind us: by the clock, or by the sequence. */
export interface EndedPartition {
  readonly partition: Partition;
  /** When its range ended, on the database's clock; undefined: a `seq` does not tell. */
  readonly endedMs: number | undefined;
}

const TIME_TYPES = new Set(['date', 'timestamp without time zone', 'timestamp with time zone']);
const NUMBER_TYPES = new Set(['integer', 'bigint']);

/** `undefined`: nothing tells when one of its partitions gets no more rows. */
export function partitionKey(table: {
  readonly strategy: string;
  readonly columns: number;
  readonly keyType: string;
  readonly keyIsSeq: boolean;
}): PartitionKey | undefined {
  if (table.strategy !== 'r' || table.columns !== 1) return undefined;
  if (TIME_TYPES.has(table.keyType)) return 'time';
  return table.keyIsSeq && NUMBER_TYPES.has(table.keyType) ? 'seq' : undefined;
}

/**
 * Partitions that get no more rows in the normal course of things, the lowest range first. Never the one with the
 * highest: without it no row could be written any more. Pure.
 */
export function endedPartitions(
  partitions: readonly Partition[],
  now: { readonly key: PartitionKey; readonly databaseMs: number; readonly lastSeq: number },
): EndedPartition[] {
  const ranged = partitions
    .map((partition) => ({ partition, end: rangeEnd(now.key, partition.bound) }))
    .toSorted((a, b) => a.end - b.end);
  const present = now.key === 'time' ? now.databaseMs : now.lastSeq;
  return ranged
    .slice(0, -1)
    .filter(({ end }) => end <= present)
    .map(({ partition, end }) => ({ partition, endedMs: now.key === 'time' ? end : undefined }));
}

/** A bound without a zone is the writers' local time, which may be so much behind the clock here. */
const FARTHEST_ZONE_MS = 14 * 3_600_000;

/** The upper end, which is no part of the range: milliseconds since the epoch, or a `seq`; Infinity: it never ends. */
function rangeEnd(key: PartitionKey, bound: string): number {
  const [, text = ''] = /^FOR VALUES FROM \(.*\) TO \('?([^']*)'?\)$/.exec(bound) ?? [];
  if (key === 'seq') return /^-?\d+$/.test(text) ? Number(text) : Infinity;
  const time = /^(\d{4})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.\d+)?(\+00)?)?$/.exec(text);
  if (!time) return Infinity;
  const [year, month, day, hour, minute, second] = time.slice(1, 7).map((part) => Number(part ?? 0)) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const zoned = time[7] !== undefined;
  return Date.UTC(year, month - 1, day, hour, minute, second) + (zoned ? 0 : FARTHEST_ZONE_MS);
}
