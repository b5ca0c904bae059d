import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { RelayError } from '../../errors/errors.ts';
import { classify } from '../../errors/policy.ts';
import { qualified, quoteIdentifier, quoteLiteral } from '../../postgres/identifier.ts';
import type { OutboxTable } from '../../postgres/outbox-table.ts';
import { rowKey } from '../../postgres/row-key.ts';

/** What is delivered comes first in the table. */
const LOOKED_AT = 1_000;

/**
 * With another CLEANUP than before, rows that it delivered and left in the table count as undelivered: years of events would
 * be sent again. Throws `stop` where the table shows that: marked rows where marks mean nothing now, or rows up to the
 * number that CLEANUP=none has settled. Only when the progress row is known to be of this table, or its numbers say nothing;
 * and once for a process: the setting can't change in it, and a row that is marked later is none of ours to judge.
 */
export async function assertSameCleanup(client: Client, config: Config, table: OutboxTable): Promise<void> {
  const { outbox, cleanup } = config;
  if (cleanup === 'none' || !outbox.numbered) return;
  const found = await look(client, config, table).catch((error: unknown) => {
    // Behind millions of dead rows the look takes long. It is a help, and must not keep anything from being delivered.
    if (classify(error).code !== 'statement-timeout') throw error;
    return undefined;
  });
  if (cleanup === 'delete' && found?.marked) throw changed('mark', unmarking(config));
  if (found?.settled) throw changed('none', settling(config));
}

/** Among the first rows of the table: marked ones, and ones that are not and have a number that CLEANUP=none settled. */
async function look(
  client: Client,
  { outbox, slotName }: Config,
  table: OutboxTable,
): Promise<{ marked: boolean; settled: boolean }> {
  const has = table.columns.has(outbox.columns.deliveredAt);
  const marked = has ? `o.${quoteIdentifier(outbox.columns.deliveredAt)} is not null` : 'false';
  const { seq } = rowKey(outbox);
  const progress = qualified(outbox.schema, 'outbox_relay_progress');
  const { rows } = await client.query<Record<'marked' | 'settled', string>>(
    `select coalesce(bool_or(marked), false)::text as marked,
            coalesce(bool_or(seq <= settled and not marked), false)::text as settled
       from (select ${seq} as seq, ${marked} as marked from ${qualified(outbox.schema, outbox.table)} o
              order by 1 limit ${LOOKED_AT}) first,
            (select coalesce(max(settled_seq), -1) as settled from ${progress} where slot_name = $1) p`,
    [slotName],
  );
  return { marked: rows[0]?.marked === 'true', settled: rows[0]?.settled === 'true' };
}

function unmarking({ outbox }: Config): string {
  const table = qualified(outbox.schema, outbox.table);
  const mark = quoteIdentifier(outbox.columns.deliveredAt);
  return (
    `remove what is delivered: delete from ${table} where ${mark} is not null; ` +
    `(what is to be sent again: update ${table} set ${mark} = null where …)`
  );
}

/** The horizon of another system, which a restored dump brings along, would see rows that nobody has delivered. */
function settling({ outbox, cleanup, slotName }: Config): string {
  const table = qualified(outbox.schema, outbox.table);
  const progress = qualified(outbox.schema, 'outbox_relay_progress');
  const ofSlot = `where slot_name = ${quoteLiteral(slotName)}`;
  const here = 'system_identifier = (select system_identifier::text from pg_control_system())';
  const horizon = `(select horizon::pg_snapshot from ${progress} ${ofSlot} and ${here})`;
  const delivered = `pg_visible_in_snapshot(${quoteIdentifier(outbox.columns.xid)}, ${horizon})`;
  const mark = quoteIdentifier(outbox.columns.deliveredAt);
  const settle =
    cleanup === 'mark'
      ? `update ${table} set ${mark} = now() where ${mark} is null and ${delivered};`
      : `delete from ${table} where ${delivered};`;
  return `settle what is delivered: ${settle} update ${progress} set settled_seq = -1 ${ofSlot};`;
}

function changed(before: 'mark' | 'none', remedy: string): RelayError {
  const message = `the outbox holds rows that were delivered with CLEANUP=${before} and would be delivered again`;
  return new RelayError('stop', 'cleanup-changed', message, {
    advice: `Set CLEANUP=${before} again, or, while no relay runs, ${remedy}`,
  });
}
