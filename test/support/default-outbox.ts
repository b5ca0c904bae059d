import type { OutboxConfig } from '../../src/config/config.ts';
import type { MigrationOptions } from '../../src/postgres/migrate.ts';

/** The outbox of a relay whose configuration names no table and no column. */
export const DEFAULT_OUTBOX: OutboxConfig = {
  schema: 'public',
  table: 'outbox',
  numbered: true,
  columns: {
    id: 'id',
    aggregateType: 'aggregatetype',
    aggregateId: 'aggregateid',
    type: 'type',
    payload: 'payload',
    headers: 'headers',
    seq: 'seq',
    xid: 'xid',
    createdAt: 'created_at',
    deliveredAt: 'delivered_at',
  },
};

export function migrationOptions(changes: Partial<MigrationOptions> = {}): MigrationOptions {
  return {
    outbox: DEFAULT_OUTBOX,
    publicationName: 'outbox_relay',
    cleanup: 'delete',
    adopt: false,
    dryRun: false,
    ...changes,
  };
}
