import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { RelayError } from '../../errors/errors.ts';
import { qualified, quoteIdentifier, quoteLiteral } from '../../postgres/identifier.ts';
import type { OutboxTable } from '../../postgres/outbox-table.ts';
import { rowKey } from '../../postgres/row-key.ts';

/** What is delivered comes first in the table. */
const LOOKED_AT = 1_000;

/**
 * With another CLEANUP than before, rows that it delivered and left in the table count as undelivered: years of events would
 * be sent again. Throws `stop` where the table shows that: marked rows where marks mean nothing now, or rows up to the
 * number that CLEANUP=none has settled.
 */
export async function assertSameCleanup(client: Client, config: Config, table: OutboxTable): Promise<void> {
  const { outbox, cleanup, slotName } = config;
  if (cleanup === 'none' || !outbox.numbered) return;
  const name = qualified(outbox.schema, outbox.table);
  const mark = quoteIdentifier(outbox.columns.deliveredAt);
  const has = table.columns.has(outbox.columns.deliveredAt);
  const marked = has ? `o.${mark} is not null` : 'false';
  const { seq } = rowKey(outbox);
  const progress = qualified(outbox.schema, 'outbox_relay_progress');
  const { rows } = await client.query<{ mark: string; none: string }>(
    `select coalesce(bool_or(marked), false)::text as mark, coalesce(bool_or(seq <= settled), false)::text as none
       from (select ${seq} as seq, ${marked} as marked from ${name} o order by 1 limit ${LOOKED_AT}) first,
            (select coalesce(max(settled_seq), -1) as settled from ${progress} where slot_name = $1) p`,
    [slotName],
  );
  if (cleanup === 'delete' && rows[0]?.mark === 'true')
    throw changed('mark', `delete from ${name} where ${mark} is not null;`);
  if (rows[0]?.none !== 'true') return;
  const ofSlot = `where slot_name = ${quoteLiteral(slotName)}`;
  const xid = quoteIdentifier(outbox.columns.xid);
  const delivered = `pg_visible_in_snapshot(${xid}, (select horizon::pg_snapshot from ${progress} ${ofSlot}))`;
  const settle =
    cleanup === 'mark' ? `update ${name} set ${mark} = now() where` : `delete from ${name} where`;
  throw changed('none', `${settle} ${delivered}; update ${progress} set settled_seq = -1 ${ofSlot};`);
}

function changed(before: 'mark' | 'none', remedy: string): RelayError {
  const message = `the outbox holds rows that were delivered with CLEANUP=${before} and would be delivered again`;
  return new RelayError('stop', 'cleanup-changed', message, {
    advice: `Set CLEANUP=${before} again, or, while no relay runs, first run: ${remedy}`,
  });
}
