import { readFileSync, readdirSync } from 'node:fs';
import type { Client } from 'pg';
import type { OutboxConfig } from '../config/config.ts';
import { RelayError } from '../errors/errors.ts';
import { refuseForeignFunctions, refuseForeignSequence } from './foreign-names.ts';
import { LOCK_TIMEOUT_MS, withLockRetry } from './lock-retry.ts';
import { type IndexPlan, planUndeliveredIndex, runConcurrently } from './undelivered-index.ts';
import { adoptStatements, missingRelayColumns, requireEventColumns } from './adopt.ts';
import { derivedName, fillTemplate, qualified, quoteIdentifier, quoteLiteral } from './identifier.ts';
import { type OutboxTable, readOutboxTable, templateValues } from './outbox-table.ts';
import { isNumbered } from './row-key.ts';
import {
  type Privileges,
  type Remark,
  planPublication,
  readPrivileges,
  streamingRemarks,
} from './publication.ts';

const FOLDER = new URL('../../migrations/', import.meta.url);
const RECORD = 'outbox_relay_migrations';

/** The driver's own deadline would cut a step short that the server has no limit for. The longest that a timer takes. */
const NO_DEADLINE = { query_timeout: 2 ** 31 - 1 };

export interface MigrationOptions {
  readonly outbox: OutboxConfig;
  /** undefined: the table is only polled. */
  readonly publicationName: string | undefined;
  readonly cleanup: 'delete' | 'mark' | 'none';
  /** Add the relay's columns to an existing table; without it a table that can be polled as it is stays so. */
  readonly adopt: boolean;
  /** Change nothing; the report's `sql` is what would run. */
  readonly dryRun: boolean;
  /** Takes one sentence while a step waits. */
  readonly onProgress?: (text: string) => void;
  /** Ends the waiting between two attempts. */
  readonly signal?: AbortSignal;
  /** How often a step that meets a lock is tried; default 60, with pauses 3 to 5 minutes. */
  readonly lockAttempts?: number;
}

export interface MigrationReport {
  /** Names of the steps that ran, or would run, in order. Empty: everything was in place. */
  readonly applied: readonly string[];
  /** Their text, complete with transactions, lock and record, for a DBA to run by hand. */
  readonly sql: string;
  readonly remarks: readonly Remark[];
}

interface Step {
  readonly name: string;
  readonly sql: string;
  /** Runs outside a transaction. */
  readonly index?: IndexPlan | undefined;
  /** Why this role can't run it. */
  readonly refused: Remark | undefined;
}

/**
 * Brings the schema up to date. Each step is a transaction of its own under one advisory lock, so that several
 * processes may migrate at once and an interrupted run is continued by the next. Throws RelayError('stop') when the
 * table can't be used or a privilege is missing without which nothing works.
 */
export async function migrate(client: Client, options: MigrationOptions): Promise<MigrationReport> {
  const applied: string[] = [];
  const texts: string[] = [];
  const remarks: Remark[] = [];
  if (options.dryRun) {
    const { steps, remarks: planned } = await plan(client, options);
    for (const step of steps) {
      applied.push(step.name);
      texts.push(`-- ${step.name}\n${script(step, options)}`);
      if (step.refused !== undefined) remarks.push(step.refused);
    }
    return { applied, sql: texts.join('\n'), remarks: [...remarks, ...planned] };
  }
  // Planned anew under the lock for every step: another process may have done it meanwhile.
  for (;;) {
    const { step, remarks: planned } = await withLockRetry(
      async () => await runNext(client, options),
      options,
    );
    if (step?.refused !== undefined) remarks.push(step.refused);
    if (step === undefined || remarks.length > 0)
      return { applied, sql: texts.join('\n'), remarks: [...remarks, ...planned] };
    applied.push(step.name);
    texts.push(step.sql);
  }
}

interface Plan {
  readonly steps: readonly Step[];
  /** What is not done, and will be missed. */
  readonly remarks: readonly Remark[];
}

async function runNext(
  client: Client,
  options: MigrationOptions,
): Promise<{ step: Step | undefined; remarks: readonly Remark[] }> {
  await client.query('begin');
  try {
    await client.query({ text: lockSql(options), ...NO_DEADLINE });
    const { steps, remarks } = await plan(client, options);
    const step = steps[0];
    if (step !== undefined && step.refused === undefined && step.index === undefined)
      await client.query({ text: step.sql, ...NO_DEADLINE });
    await client.query('commit');
    if (step?.index !== undefined) await runConcurrently(client, step.index, NO_DEADLINE.query_timeout);
    return { step, remarks };
  } catch (error) {
    await client.query('rollback').catch(() => undefined);
    throw error;
  }
}

function script(step: Step, options: MigrationOptions): string {
  if (step.index !== undefined) return `-- not in a transaction\n${step.sql}\n`;
  return `begin;\n${lockSql(options)}\n${step.sql}\ncommit;\n`;
}

/** Transaction-level, because PgBouncer in transaction mode breaks session locks. */
function lockSql(options: MigrationOptions): string {
  const key = quoteLiteral(`outbox-relay migrate ${options.outbox.schema}`);
  return [
    // Numbering the rows of a large table takes its time; waiting behind another `migrate` does too.
    `set local statement_timeout = 0; set local lock_timeout = '60s';`,
    `select pg_advisory_xact_lock(hashtextextended(${key}, 0));`,
    // Whoever waits for an exclusive lock on a table makes every later writer wait behind it.
    `set local lock_timeout = '${LOCK_TIMEOUT_MS}ms'; -- when it runs out, run this step again`,
  ].join('\n');
}

async function plan(client: Client, options: MigrationOptions): Promise<Plan> {
  const { outbox, publicationName, dryRun } = options;
  const privileges = await readPrivileges(client, outbox.schema);
  if (privileges.schemaExists && !privileges.usageOfSchema) throw createRefused(privileges, outbox);
  const table = await readOutboxTable(client, outbox);
  const steps: Step[] = [];
  const add: AddStep = (name, sql, { refused, index } = {}) => void steps.push({ name, sql, refused, index });

  if (!privileges.schemaExists) add('schema', `create schema ${quoteIdentifier(outbox.schema)};`);
  if (!table?.columns.has(outbox.columns.seq) && table?.sequence === undefined)
    await refuseForeignSequence(client, outbox.schema, derivedName(outbox.table, '_seq'));
  const lack = table === undefined ? undefined : planAdoption(options, table, add);
  await planNumbered(client, { ...options, adopted: lack === undefined }, table, add);
  const remarks: Remark[] = lack === undefined ? [] : [lack];
  const mayCreate = privileges.schemaExists ? privileges.createInSchema : privileges.createInDatabase;
  if (steps.length > 0 && !mayCreate) {
    const refused = createRefused(privileges, outbox);
    // Whoever prints the statements for somebody else need not be allowed to run them.
    if (!dryRun) throw refused;
    remarks.push({ code: 'privilege', message: refused.message, remedy: refused.advice });
  }
  const onlyPolled = lack !== undefined && table !== undefined && !isNumbered(outbox, table);
  if (publicationName === undefined || onlyPolled) return { steps, remarks };
  const publication = await planPublication(client, {
    outbox,
    publication: publicationName,
    privileges,
    tableOwned: table?.owned ?? true,
  });
  if (publication.statement !== undefined)
    add('publication', `${publication.statement};`, { refused: publication.remark });
  return { steps, remarks: [...remarks, ...streamingRemarks(privileges)] };
}

type AddStep = (
  name: string,
  sql: string,
  more?: { refused?: Remark | undefined; index?: IndexPlan | undefined },
) => void;

/** What the table lacks, if it stays as it is. */
function planAdoption(options: MigrationOptions, table: OutboxTable, add: AddStep): Remark | undefined {
  const { outbox, cleanup } = options;
  requireEventColumns(outbox, table);
  const missing = missingRelayColumns(outbox, table);
  if (missing.length === 0) return undefined;
  const name = qualified(outbox.schema, outbox.table);
  if (!options.adopt) {
    const message = `${name} exists and has no column ${missing.join(', ')}`;
    const remedy =
      'Run `migrate --adopt` at a quiet time: it adds these columns in one transaction that keeps writers out for as ' +
      'long as it takes to number the rows that are there.';
    if (cleanup !== 'delete' || table.partitioned)
      throw new RelayError('stop', 'adoption-needed', message, { advice: remedy });
    const consequence = isNumbered(outbox, table)
      ? 'it is used as it is, without a function that writes events'
      : 'it can only be polled, and a row that the application deletes at once is never delivered';
    return { code: 'columns', message: `${message}: ${consequence}`, remedy };
  }
  if (!table.owned && !options.dryRun)
    throw new RelayError('stop', 'privilege', `only its owner may add columns to ${name}`, {
      advice: `Let its owner run the output of \`migrate --adopt --dry-run\` (CLEANUP=${cleanup}).`,
    });
  add(
    'adopt',
    adoptStatements(outbox, table)
      .map((statement) => `${statement};`)
      .join('\n'),
  );
  return undefined;
}

async function planNumbered(
  client: Client,
  options: MigrationOptions & { readonly adopted: boolean },
  table: OutboxTable | undefined,
  add: AddStep,
): Promise<void> {
  const { outbox } = options;
  const record = qualified(outbox.schema, RECORD);
  const applied = await readApplied(client, outbox);
  const values = templateValues(outbox, table, functionNames(outbox, applied));
  for (const file of migrationFiles()) {
    if (applied.get(outbox.table)?.has(file.number) === true) continue;
    // The others are about the table's own columns.
    if (!options.adopted && file.number !== RELAY_TABLES) continue;
    if (file.number === EMIT) await refuseForeignFunctions(client, outbox.schema, functionsOf(values));
    // A table that exists has its columns by now; only the record is missing.
    const body = file.number === 1 && table !== undefined ? '' : fillTemplate(file.sql, values);
    const note = `create table if not exists ${record} (
  outbox_table text, number integer, name text not null, applied_at timestamptz not null default now(),
  primary key (outbox_table, number)
);
insert into ${record} (outbox_table, number, name)
values (${quoteLiteral(outbox.table)}, ${file.number}, ${quoteLiteral(file.name)});`;
    add(file.name, `${body}${note}`);
  }
  const index = options.cleanup === 'mark' ? await planUndeliveredIndex(client, outbox, table) : undefined;
  if (index === undefined) return;
  const sql = `${index.statements.join(';\n')};`;
  add('undelivered-index', sql, { index: index.concurrently ? index : undefined });
}

/** Number of the migration that makes the relay's own tables. */
const RELAY_TABLES = 2;
/** Number of the migration that makes the functions. */
const EMIT = 3;

function functionsOf({ emit, lock_key, payload_type }: ReturnType<typeof templateValues>) {
  return [
    { name: String(emit), signature: `text, text, text, ${String(payload_type)}, jsonb` },
    { name: String(lock_key), signature: '' },
  ];
}

/** Outbox table → numbers applied for it. */
async function readApplied(client: Client, outbox: OutboxConfig): Promise<Map<string, Set<number>>> {
  const record = qualified(outbox.schema, RECORD);
  const found = await client.query<{ found: string | null }>('select to_regclass($1) as found', [record]);
  const applied = new Map<string, Set<number>>();
  if (found.rows[0]?.found == null) return applied;
  const rows = await client.query<{ outbox_table: string; number: string }>(
    `select outbox_table, number from ${record} r
      where to_regclass(format('%I.%I', $1::text, outbox_table)) is not null`,
    [outbox.schema],
  );
  for (const row of rows.rows) {
    const numbers = applied.get(row.outbox_table) ?? new Set<number>();
    applied.set(row.outbox_table, numbers.add(Number(row.number)));
  }
  return applied;
}

/** `outbox_emit` belongs to the first outbox of a schema: to redirect it would misdeliver every event of the others. */
function functionNames(
  outbox: OutboxConfig,
  applied: ReadonlyMap<string, ReadonlySet<number>>,
): { emit: string; lockKey: string } {
  const others = [...applied.keys()].filter((name) => name !== outbox.table);
  if (others.length === 0) return { emit: 'outbox_emit', lockKey: 'outbox_lock_key' };
  return { emit: derivedName(outbox.table, '_emit'), lockKey: derivedName(outbox.table, '_lock_key') };
}

function createRefused(privileges: Privileges, outbox: OutboxConfig): RelayError {
  const role = quoteIdentifier(privileges.user);
  const [what, place] = privileges.schemaExists
    ? ['CREATE, USAGE', `SCHEMA ${quoteIdentifier(outbox.schema)}`]
    : ['CREATE', `DATABASE ${quoteIdentifier(privileges.database)}`];
  return new RelayError('stop', 'privilege', `role ${role} may not create anything in ${place}`, {
    advice: `A privileged role runs: GRANT ${what} ON ${place} TO ${role};`,
  });
}

function migrationFiles(): readonly { number: number; name: string; sql: string }[] {
  return readdirSync(FOLDER)
    .filter((file) => /^\d{4}_\w+\.sql$/.test(file))
    .sort()
    .map((file) => ({
      number: Number(file.slice(0, 4)),
      name: file.replace('.sql', ''),
      sql: readFileSync(new URL(file, FOLDER), 'utf8'),
    }));
}
