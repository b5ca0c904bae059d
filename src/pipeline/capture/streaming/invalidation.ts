import type { Slot } from './slot.ts';

export interface Invalidation {
  readonly reason: string;
  readonly message: string;
  readonly advice: string;
}

/** As pg_replication_slots.invalidation_reason says from PostgreSQL 17 on; before it, only the log can be gone. */
const KNOWN: Readonly<Record<string, Omit<Invalidation, 'reason'>>> = {
  wal_removed: {
    message: 'the server removed the log that the replication slot needed',
    advice:
      'Raise max_slot_wal_keep_size above WAL_RETENTION_LIMIT_BYTES, and look why the relay or its broker was behind.',
  },
  idle_timeout: {
    message: 'the server invalidated the replication slot, because nobody had read it for too long',
    advice: 'Raise idle_replication_slot_timeout above the longest time for which the relay may be stopped.',
  },
  rows_removed: {
    message: 'the server invalidated the replication slot: rows of the catalogs that it needed are gone',
    advice: 'On a standby, set hot_standby_feedback = on.',
  },
  wal_level_insufficient: {
    message: 'the server invalidated the replication slot: wal_level was not logical',
    advice: 'Keep wal_level = logical.',
  },
};

/** Why the server gave this slot up; undefined: it did not. Pure. */
export function explainInvalidation(slot: Slot): Invalidation | undefined {
  const { walStatus, invalidationReason } = slot;
  if (invalidationReason === undefined && walStatus !== 'lost') return undefined;
  const reason = invalidationReason ?? 'wal_removed';
  const known = KNOWN[reason];
  if (known) return { reason, ...known };
  return {
    reason,
    message: `the server invalidated the replication slot: ${reason}`,
    advice: "Look into PostgreSQL's log.",
  };
}
