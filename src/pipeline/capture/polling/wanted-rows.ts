import type { RowKey } from '../../../postgres/row-key.ts';

/** Which rows are meant. */
export type WantedRows =
  /** What a snapshot sees, without what an older one (`horizon`) saw, which was delivered before: a set that can't grow. */
  { readonly snapshot: string; readonly horizon: string | undefined } | { readonly seqs: readonly number[] };

/** For a statement whose first two parameters are others. */
export interface Where {
  readonly condition: string;
  readonly values: readonly unknown[];
}

export function whereOf(wanted: WantedRows, { among, xid }: RowKey): Where {
  if ('seqs' in wanted) return { condition: `and ${among('$3::bigint[]')}`, values: [wanted.seqs] };
  // One that no transaction of this server can have yet came with a restored dump, and only this pass will deliver it.
  const restored = `${xid} >= pg_snapshot_xmax(pg_current_snapshot())`;
  return {
    condition: `and (pg_visible_in_snapshot(${xid}, $3::pg_snapshot) or ${restored})
          and ($4::pg_snapshot is null or not pg_visible_in_snapshot(${xid}, $4::pg_snapshot))`,
    values: [wanted.snapshot, wanted.horizon ?? null],
  };
}
