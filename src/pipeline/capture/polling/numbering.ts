import type { Client } from 'pg';
import type { OutboxConfig } from '../../../config/config.ts';
import { qualified } from '../../../postgres/identifier.ts';
import { readOutboxTable } from '../../../postgres/outbox-table.ts';

/** The sequence that numbers the rows. */
export interface Numbering {
  readonly oid: string;
  /** Quoted and qualified. */
  readonly sequence: string;
}

/**
 * `undefined` when the sequence does not tell which numbers can still come: there is none or the role may not read it,
 * sessions keep numbers for later (CACHE), it runs in a circle or downwards, or the default is more than its next value.
 */
export async function readNumbering(client: Client, outbox: OutboxConfig): Promise<Numbering | undefined> {
  const table = await readOutboxTable(client, outbox);
  if (!table?.sequence) return undefined;
  const sequence = qualified(...table.sequence);
  const { rows } = await client.query<{ oid: string }>(
    `select s.seqrelid::text as oid
       from pg_sequence s, pg_attribute a
       left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where s.seqrelid = $1::regclass and s.seqcache = 1 and s.seqincrement > 0 and not s.seqcycle
        and has_sequence_privilege(s.seqrelid, 'SELECT')
        and a.attrelid = $2::regclass and a.attname = $3
        and (a.attidentity <> '' or pg_get_expr(d.adbin, d.adrelid) ~ '^nextval\\(''[^'']*''::regclass\\)$')`,
    [sequence, qualified(outbox.schema, outbox.table), outbox.columns.seq],
  );
  const [row] = rows;
  return row && { oid: row.oid, sequence };
}

/**
 * Transactions that may have drawn a number and are still running, prepared ones too: nextval takes this lock before it
 * draws, whether or not the transaction has an id yet, and keeps it until the transaction ends.
 */
export async function readDrawers(client: Client, { oid }: Numbering): Promise<string[]> {
  const { rows } = await client.query<{ holder: string }>(
    `select virtualtransaction as holder from pg_locks
      where locktype = 'relation' and relation = $1::oid and mode = 'RowExclusiveLock' and granted
        and database = (select oid from pg_database where datname = current_database())`,
    [oid],
  );
  return rows.map(({ holder }) => holder);
}
