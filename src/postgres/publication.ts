import type { Client } from 'pg';
import type { OutboxConfig } from '../config/config.ts';
import { qualified, quoteIdentifier, quoteLiteral } from './identifier.ts';

/** Something that `migrate` could not do or that will be missed later, with the statement that remedies it. */
export interface Remark {
  readonly code: 'publication' | 'replication-privilege' | 'wal-level' | 'privilege' | 'columns';
  readonly message: string;
  readonly remedy: string;
}

export interface Privileges {
  readonly user: string;
  readonly database: string;
  readonly createInDatabase: boolean;
  readonly usageOfSchema: boolean;
  readonly createInSchema: boolean;
  readonly schemaExists: boolean;
  readonly replication: boolean;
  readonly walLevel: string;
}

/** What the session's role may do. */
export async function readPrivileges(client: Client, schema: string): Promise<Privileges> {
  const result = await client.query<Record<keyof Privileges, string>>(
    `select current_user as "user", current_database() as "database",
            has_database_privilege(current_database(), 'CREATE')::text as "createInDatabase",
            (n.oid is not null)::text as "schemaExists",
            coalesce(has_schema_privilege(n.oid, 'USAGE'), false)::text as "usageOfSchema",
            coalesce(has_schema_privilege(n.oid, 'CREATE'), false)::text as "createInSchema",
            current_setting('wal_level') as "walLevel",
            -- Managed services grant the attribute by membership.
            (r.rolreplication or r.rolsuper or exists (
              select from pg_roles m where m.rolname in ('rds_replication', 'alloydbreplica')
                and pg_has_role(current_user, m.oid, 'MEMBER')))::text as "replication"
       from pg_roles r left join pg_namespace n on n.nspname = $1
      where r.rolname = current_user`,
    [schema],
  );
  const row = result.rows[0];
  if (row === undefined) throw new Error('the role of the session is not in pg_roles');
  return {
    user: row.user,
    database: row.database,
    walLevel: row.walLevel,
    createInDatabase: row.createInDatabase === 'true',
    usageOfSchema: row.usageOfSchema === 'true',
    createInSchema: row.createInSchema === 'true',
    schemaExists: row.schemaExists === 'true',
    replication: row.replication === 'true',
  };
}

/** The comment on everything whose name somebody else may have taken: only what carries it is ever changed. */
export const OURS = 'Made by outbox-relay migrate';

interface PublicationState {
  readonly exists: boolean;
  /** Made by `migrate`, so that it may be altered. */
  readonly ours: boolean;
  /** Every row with every column: no row filter, no column list. */
  readonly covers: boolean;
  /** The table itself is named in it, rightly or with a restriction. */
  readonly member: boolean;
  readonly inserts: boolean;
  readonly owned: boolean;
}

async function readPublication(
  client: Client,
  outbox: OutboxConfig,
  publication: string,
): Promise<PublicationState> {
  type Facts = Record<'pubinsert' | 'owned' | 'ours' | 'covers' | 'member', string>;
  const result = await client.query<Facts>(
    `select p.pubinsert::text, pg_has_role(current_user, p.pubowner, 'USAGE')::text as owned,
            (coalesce(obj_description(p.oid, 'pg_publication'), '') = $4)::text as ours,
            (p.puballtables or exists (select from pg_publication_tables t
              where t.pubname = p.pubname and t.schemaname = $2 and t.tablename = $3
                -- By way of JSON, because PostgreSQL 14 has neither filters nor column lists.
                and to_jsonb(t)->>'rowfilter' is null
                and not exists (select from pg_attribute a
                  where a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                    and not coalesce(to_jsonb(t)->'attnames' ? a.attname::text, true))))::text as covers,
            exists (select from pg_publication_rel r where r.prpubid = p.oid and r.prrelid = o.oid)::text as member
       from pg_publication p
       left join (pg_class o join pg_namespace n on n.oid = o.relnamespace)
              on n.nspname = $2 and o.relname = $3
      where p.pubname = $1`,
    [publication, outbox.schema, outbox.table, OURS],
  );
  const row = result.rows[0];
  return {
    exists: row !== undefined,
    ours: row?.ours === 'true',
    covers: row?.covers === 'true',
    member: row?.member === 'true',
    inserts: row?.pubinsert === 'true',
    owned: row?.owned === 'true',
  };
}

/** Whether inserts into the outbox go into the publication now. A slot tells nothing of that: it just stays silent. */
export async function publicationCovers(
  client: Client,
  outbox: OutboxConfig,
  publication: string,
): Promise<boolean> {
  const { exists, covers, inserts } = await readPublication(client, outbox, publication);
  return exists && covers && inserts;
}

/** The statement that is needed, if any, and what stands against it. `tableOwned` is about the outbox table. */
export async function planPublication(
  client: Client,
  target: { outbox: OutboxConfig; publication: string; privileges: Privileges; tableOwned: boolean },
): Promise<{ readonly statement: string | undefined; readonly remark: Remark | undefined }> {
  const { outbox, publication, privileges, tableOwned } = target;
  const state = await readPublication(client, outbox, publication);
  if (state.exists && state.covers && state.inserts) return { statement: undefined, remark: undefined };
  const statement = publicationStatement(outbox, publication, state);
  if (state.exists && !state.ours) return { statement, remark: foreign(publication, statement) };
  const role = quoteIdentifier(privileges.user);
  const remedies: string[] = [];
  if (!state.exists && !privileges.createInDatabase)
    remedies.push(`GRANT CREATE ON DATABASE ${quoteIdentifier(privileges.database)} TO ${role};`);
  if (state.exists && !state.owned)
    remedies.push(`ALTER PUBLICATION ${quoteIdentifier(publication)} OWNER TO ${role};`);
  if (!tableOwned) remedies.push(`ALTER TABLE ${qualified(outbox.schema, outbox.table)} OWNER TO ${role};`);
  if (remedies.length === 0) return { statement, remark: undefined };
  const remark: Remark = {
    code: 'publication',
    message: `role ${role} may not run: ${statement};`,
    remedy: `A privileged role runs that statement once, or: ${remedies.join(' ')} then migrate again.`,
  };
  return { statement, remark };
}

/** To others that read it, every event of the outbox would be news, and a narrower `publish` a loss. */
function foreign(publication: string, statement: string): Remark {
  return {
    code: 'publication',
    message:
      `publication ${quoteIdentifier(publication)} does not bring every insert into the outbox, ` +
      'and as it was not made by "migrate", it is not changed',
    remedy: `Set PUBLICATION_NAME to a name that is free, or, if nobody else reads it, run: ${statement};`,
  };
}

/**
 * Insert-only: the relay's own deletes then make no traffic in the stream, and no replica identity is needed.
 * Via the root: rows of a partition arrive as rows of the outbox.
 */
function publicationStatement(outbox: OutboxConfig, publication: string, state: PublicationState): string {
  const name = quoteIdentifier(publication);
  const table = qualified(outbox.schema, outbox.table);
  const set = `(publish = 'insert', publish_via_partition_root = true)`;
  if (!state.exists)
    return (
      `create publication ${name} for table ${table} with ${set}; ` +
      `comment on publication ${name} is ${quoteLiteral(OURS)}`
    );
  const steps = [`alter publication ${name} set ${set}`];
  if (!state.covers) steps.unshift(`alter publication ${name} add table ${table}`);
  // With a row filter or a column list it can't be added once more.
  if (!state.covers && state.member) steps.unshift(`alter publication ${name} drop table ${table}`);
  return steps.join('; ');
}

/** What streaming will need and this role or server lacks. */
export function streamingRemarks(privileges: Privileges): readonly Remark[] {
  const remarks: Remark[] = [];
  if (!privileges.replication)
    remarks.push({
      code: 'replication-privilege',
      message: `role ${quoteIdentifier(privileges.user)} has no REPLICATION privilege, which streaming needs`,
      remedy: `ALTER ROLE ${quoteIdentifier(privileges.user)} REPLICATION;`,
    });
  if (privileges.walLevel !== 'logical')
    remarks.push({
      code: 'wal-level',
      message: `wal_level is ${privileges.walLevel}, and streaming needs logical`,
      remedy: 'ALTER SYSTEM SET wal_level = logical; then restart the server.',
    });
  return remarks;
}
