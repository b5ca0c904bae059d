import type { Client } from 'pg';
import type { OutboxConfig } from '../config/config.ts';
import { qualified, quoteIdentifier } from './identifier.ts';

/** Something that `migrate` could not do or that will be missed later, with the statement that remedies it. */
export interface Remark {
  readonly code: 'publication' | 'replication-privilege' | 'wal-level';
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

interface PublicationState {
  readonly exists: boolean;
  readonly covers: boolean;
  readonly inserts: boolean;
  readonly owned: boolean;
}

async function readPublication(
  client: Client,
  outbox: OutboxConfig,
  publication: string,
): Promise<PublicationState> {
  const result = await client.query<{ pubinsert: string; owned: string; covers: string }>(
    `select p.pubinsert::text, pg_has_role(current_user, p.pubowner, 'USAGE')::text as owned,
            (p.puballtables or exists (select from pg_publication_tables t
              where t.pubname = p.pubname and t.schemaname = $2 and t.tablename = $3))::text as covers
       from pg_publication p where p.pubname = $1`,
    [publication, outbox.schema, outbox.table],
  );
  const row = result.rows[0];
  return {
    exists: row !== undefined,
    covers: row?.covers === 'true',
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

/**
 * Insert-only: the relay's own deletes then make no traffic in the stream, and no replica identity is needed.
 * Via the root: rows of a partition arrive as rows of the outbox.
 */
function publicationStatement(outbox: OutboxConfig, publication: string, state: PublicationState): string {
  const name = quoteIdentifier(publication);
  const table = qualified(outbox.schema, outbox.table);
  if (!state.exists)
    return `create publication ${name} for table ${table} with (publish = 'insert', publish_via_partition_root = true)`;
  if (!state.covers) return `alter publication ${name} add table ${table}`;
  return `alter publication ${name} set (publish = 'insert', publish_via_partition_root = true)`;
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
