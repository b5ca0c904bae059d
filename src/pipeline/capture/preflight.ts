import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { RelayError } from '../../errors/errors.ts';
import { readOutboxTable, type OutboxTable } from '../../postgres/outbox-table.ts';
import { planPublication, readPrivileges, streamingRemarks } from '../../postgres/publication.ts';

/** What the server is like, found out before streaming begins. */
export interface Preflight {
  readonly database: string;
  readonly walSenderTimeoutMs: number;
  /** Tables in the publication that are not the outbox. */
  readonly foreignOids: ReadonlySet<number>;
  /** Columns that every row of the stream must have. */
  readonly requiredColumns: readonly string[];
}

/** Checks the table, whatever the source. Throws RelayError('stop') with the statement that remedies it. */
export async function checkTable(client: Client, config: Config): Promise<OutboxTable> {
  const { outbox } = config;
  const table = await readOutboxTable(client, outbox);
  if (!table) {
    throw stop('table-missing', `table ${outbox.schema}.${outbox.table} does not exist`, {
      advice: 'Run "outbox-relay migrate" with the same configuration, or correct OUTBOX_TABLE.',
    });
  }
  const { columns } = outbox;
  const required = [columns.id, columns.aggregateType, columns.aggregateId, columns.type, columns.payload];
  const marked = config.cleanup === 'mark' ? [columns.deliveredAt] : [];
  const missing = [...required, columns.seq, columns.xid, ...marked].filter(
    (name) => !table.columns.has(name),
  );
  if (missing.length > 0) {
    throw stop('column-missing', `table ${outbox.schema}.${outbox.table} lacks ${missing.join(', ')}`, {
      advice: 'Run "outbox-relay migrate --adopt" to add them, or map OUTBOX_*_COLUMN to their names.',
    });
  }
  return table;
}

/**
 * Checks what streaming needs and makes the publication when it is missing and the role may. Throws RelayError('stop')
 * with the statement that remedies it. Repeated at every reconnect: a publication dropped meanwhile must be noticed.
 */
export async function checkStreaming(client: Client, config: Config, table: OutboxTable): Promise<Preflight> {
  const { outbox, publicationName } = config;
  const { columns } = outbox;
  const privileges = await readPrivileges(client, outbox.schema);
  const [lack] = streamingRemarks(privileges);
  if (lack) throw stop(lack.code, lack.message, { advice: lack.remedy });
  const plan = await planPublication(client, {
    outbox,
    publication: publicationName,
    privileges,
    tableOwned: table.owned,
  });
  if (plan.remark) throw stop('publication', plan.remark.message, { advice: plan.remark.remedy });
  if (plan.statement !== undefined) await client.query(plan.statement);
  return {
    database: privileges.database,
    walSenderTimeoutMs: await readWalSenderTimeoutMs(client),
    foreignOids: await readForeignOids(client, config),
    requiredColumns: [columns.id, columns.payload],
  };
}

function stop(code: string, message: string, options: { advice: string }): RelayError {
  return new RelayError('stop', code, message, options);
}

async function readWalSenderTimeoutMs(client: Client): Promise<number> {
  const { rows } = await client.query<{ setting: string }>(
    `select setting from pg_settings where name = 'wal_sender_timeout'`,
  );
  return Number(rows[0]?.setting ?? 60_000);
}

/** The outbox with its partitions is ours; whatever else somebody put into the publication is not. */
async function readForeignOids(client: Client, config: Config): Promise<Set<number>> {
  const { rows } = await client.query<{ oid: string }>(
    `select c.oid from pg_publication_tables t
       join pg_namespace n on n.nspname = t.schemaname
       join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
      where t.pubname = $1
        and c.oid not in (select relid from pg_partition_tree(format('%I.%I', $2::text, $3::text)::regclass))
        and not (t.schemaname = $2 and t.tablename = $3)`,
    [config.publicationName, config.outbox.schema, config.outbox.table],
  );
  return new Set(rows.map(({ oid }) => Number(oid)));
}
