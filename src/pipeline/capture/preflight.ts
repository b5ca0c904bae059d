import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { RelayError } from '../../errors/errors.ts';
import { ROW_SECURITY_ADVICE } from '../../errors/policy.ts';
import { readOutboxTable, type OutboxTable } from '../../postgres/outbox-table.ts';
import { isNumbered } from '../../postgres/row-key.ts';
import { addressColumns } from '../envelope/router.ts';
import { planPublication, readPrivileges, streamingRemarks } from '../../postgres/publication.ts';

/** What the server is like, found out before streaming begins. */
export interface Preflight {
  readonly database: string;
  readonly walSenderTimeoutMs: number;
  /** It was missing, or did not bring every insert, until now. */
  readonly publicationMended: boolean;
  /** The outbox and its partitions. */
  readonly oids: ReadonlySet<number>;
  /** What else is in the publication. */
  readonly others: ReadonlySet<number>;
  /** Nothing else is, nor can come in by itself. */
  readonly alone: boolean;
  /** Columns without which a row of the stream can't be addressed. */
  readonly addressColumns: readonly string[];
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
  if (table.filtered) {
    const message = `row-level security decides which rows of ${outbox.schema}.${outbox.table} the relay sees`;
    throw stop('row-security', message, { advice: ROW_SECURITY_ADVICE });
  }
  const { columns } = outbox;
  const own = mayLackNumbers(config, table) ? [] : [columns.seq, columns.xid];
  const marked = config.cleanup === 'mark' ? [columns.deliveredAt] : [];
  const missing = [...eventColumns(config), ...own, ...marked].filter((name) => !table.columns.has(name));
  if (missing.length > 0) throw columnsMissing(config, missing);
  const wrong = wrongTypes(config, table);
  if (wrong.length > 0) {
    throw stop('column-type', `table ${outbox.schema}.${outbox.table}: ${wrong.join(', ')}`, {
      advice:
        'Map OUTBOX_*_COLUMN to columns of these types; "outbox-relay migrate --adopt" adds those that are missing.',
    });
  }
  return table;
}

/** What an event is made of: without one of these all of them would be parked, or sent without it. */
function eventColumns(config: Config): readonly string[] {
  const { id, aggregateType, aggregateId, type, payload } = config.outbox.columns;
  return [...new Set([id, aggregateType, aggregateId, type, payload, ...addressColumns(config)])];
}

/** Throws RelayError('stop') when what an event is made of is not among these. */
export function assertEventColumns(config: Config, columns: ReadonlyMap<string, unknown>): void {
  const missing = eventColumns(config).filter((name) => !columns.has(name));
  if (missing.length > 0) throw columnsMissing(config, missing);
}

/**
 * Without them it can be polled, as long as nobody else has to tell what is delivered. Not where they only go by another
 * name: the order would be another one, and the slot would be given up for a typing error.
 */
function mayLackNumbers(config: Config, { partitioned, columns }: OutboxTable): boolean {
  const { source, cleanup, deletedAtOnce, outbox } = config;
  const { seq, xid } = outbox.columns;
  const neverHad = seq === 'seq' && xid === 'xid' && !columns.has(seq) && !columns.has(xid);
  return neverHad && source !== 'streaming' && cleanup === 'delete' && deletedAtOnce !== true && !partitioned;
}

/** What stands against streaming from a table whose rows are not numbered. */
export function unnumbered(config: Config, table: OutboxTable): RelayError | undefined {
  const { seq, xid } = config.outbox.columns;
  if (isNumbered(config.outbox, table)) return undefined;
  return columnsMissing(
    config,
    [seq, xid].filter((name) => !table.columns.has(name)),
  );
}

function columnsMissing({ outbox }: Config, missing: readonly string[]): RelayError {
  return stop('column-missing', `table ${outbox.schema}.${outbox.table} lacks ${missing.join(', ')}`, {
    advice:
      'Run "outbox-relay migrate --adopt" to add those of the relay; map OUTBOX_*_COLUMN to your own, and name in ROUTE_TOPIC, ROUTE_KEY and the like only columns that there are.',
  });
}

const TYPES: Partial<Record<keyof Config['outbox']['columns'], readonly string[]>> = {
  seq: ['bigint', 'integer', 'smallint'],
  xid: ['xid8'],
  createdAt: ['timestamp with time zone', 'timestamp without time zone', 'date'],
  deliveredAt: ['timestamp with time zone', 'timestamp without time zone'],
};

/** Of the columns that statements compute with; a column that is not there is another matter. */
function wrongTypes({ outbox, cleanup }: Config, table: OutboxTable): string[] {
  return Object.entries(TYPES).flatMap(([role, types]) => {
    if (role === 'deliveredAt' && cleanup !== 'mark') return [];
    const name = outbox.columns[role as keyof typeof TYPES];
    const type = table.columns.get(name);
    return type === undefined || types.includes(type) ? [] : [`${name} is ${type}, and not ${types[0]}`];
  });
}

/**
 * Checks what streaming needs and makes the publication when it is missing and the role may. Throws RelayError('stop')
 * with the statement that remedies it. Repeated at every reconnect: a publication dropped meanwhile must be noticed.
 */
export async function checkStreaming(client: Client, config: Config, table: OutboxTable): Promise<Preflight> {
  const { outbox, publicationName } = config;
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
    publicationMended: plan.statement !== undefined,
    ...(await readPublished(client, config)),
    addressColumns: [outbox.columns.type, ...addressColumns(config)],
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
async function readPublished(
  client: Client,
  config: Config,
): Promise<Pick<Preflight, 'oids' | 'others' | 'alone'>> {
  const { outbox, publicationName } = config;
  const { rows } = await client.query<{ oids: string; others: string | null; all: string }>(
    `with outbox as (
       select to_regclass(format('%I.%I', $2::text, $3::text))::oid as relid
       union select relid from pg_partition_tree(to_regclass(format('%I.%I', $2::text, $3::text))))
     select (select string_agg(relid::text, ',') from outbox) as oids,
            (select string_agg(c.oid::text, ',')
               from pg_publication_tables t
               join pg_namespace n on n.nspname = t.schemaname
               join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
              where t.pubname = p.pubname and c.oid not in (select relid from outbox)) as others,
            p.puballtables::text as all
       from pg_publication p where p.pubname = $1`,
    [publicationName, outbox.schema, outbox.table],
  );
  const [{ oids, others, all }] = rows as [(typeof rows)[number]];
  return {
    oids: new Set(oids.split(',').map(Number)),
    others: new Set(others?.split(',').map(Number)),
    alone: others === null && all === 'false',
  };
}
