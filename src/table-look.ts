import type { Client } from 'pg';
import type { Config } from './config/config.ts';
import { RelayError } from './errors/errors.ts';
import { aborted } from './lifecycle/wait.ts';
import type { ChangeLog } from './observe/log.ts';
import { checkTable, unnumbered } from './pipeline/capture/preflight.ts';
import type { OutboxTable } from './postgres/outbox-table.ts';
import { planUndeliveredIndex } from './postgres/undelivered-index.ts';

export interface TableLook {
  readonly table: OutboxTable;
  /** With what the table itself says: whether its rows are numbered. */
  readonly config: Config;
  /** What keeps it from being streamed; then its rows are told by their place in the file (postgres/row-key.ts). */
  readonly lack: RelayError | undefined;
}

/** Finds out what the outbox is like, and tells what its owner would want to know. Throws what makes it unusable. */
export async function lookAtTable(client: Client, config: Config, changes: ChangeLog): Promise<TableLook> {
  const table = await checkTable(client, config);
  await tellMissingIndex(client, { config, table, changes });
  const lack = unnumbered(config, table);
  if (!lack) return { table, config, lack };
  changes.report('order', 'by-transaction', {
    level: 'warn',
    message: `${lack.message}: its rows are polled, in the order in which their transactions first wrote something; one that is deleted before it was polled is never delivered`,
    fields: { advice: lack.advice },
  });
  return { table, config: { ...config, outbox: { ...config.outbox, numbered: false } }, lack };
}

/** There is no slot to make for such a table, unless the columns were added meanwhile. Always throws. */
export async function refuseSlot(
  client: Client,
  config: Config,
  { onAdopted, signal }: { onAdopted: (error: RelayError) => void; signal: AbortSignal },
): Promise<never> {
  const lack = unnumbered(config, await checkTable(client, config));
  if (lack) throw lack;
  const adopted = new RelayError('retry', 'adopted', 'the table has the columns that streaming needs now', {
    advice: 'The relay goes on with them by itself.',
  });
  onAdopted(adopted);
  // Not an obstacle that anybody has to be told of.
  await aborted(signal);
  throw adopted;
}

/** Everything works without it, and each look at the table reads all that is marked. */
async function tellMissingIndex(
  client: Client,
  { config, table, changes }: { config: Config; table: OutboxTable; changes: ChangeLog },
): Promise<void> {
  if (config.cleanup !== 'mark') return;
  const plan = await planUndeliveredIndex(client, config.outbox, table);
  changes.report('undelivered-index', plan ? 'missing' : 'there', {
    level: plan ? 'warn' : 'debug',
    message: 'there is no index of the undelivered rows, and CLEANUP=mark keeps the others',
    fields: {
      advice: 'Run "outbox-relay migrate" with CLEANUP=mark, which makes it without keeping writers out.',
    },
  });
}
