import { DatabaseError, type Client, type QueryConfig, type QueryResult } from 'pg';
import { quoteLiteral } from './identifier.ts';

const pooled = new WeakSet<Client>();

/** A pooler lies in between: nothing that is set lasts longer than a transaction, and nothing can be streamed. */
export function isPooled(client: Client): boolean {
  return pooled.has(client);
}

/** PgBouncer takes no `options` at the start, unless it is told to ignore them. */
export function refusesOptions(error: unknown): boolean {
  return error instanceof DatabaseError && /unsupported startup parameter.*options/.test(error.message);
}

/**
 * A pooler gives out process numbers of its own, with which a statement can be cancelled through it. Where it ignores
 * the startup's options, only this tells that they never arrived.
 */
export async function comesThroughPooler(client: Client): Promise<boolean> {
  const { processID } = client as unknown as { readonly processID: number | null };
  const { rows } = await client.query<{ pid: string }>('select pg_backend_pid() as pid');
  return Number(rows[0]?.pid) !== processID;
}

type Query = (query: string | QueryConfig, values?: unknown[]) => Promise<QueryResult>;

/**
 * Runs every statement of this client in a transaction of its own that begins with `settings`, which a session could
 * not keep, and without names of prepared statements, which another session may not know. Transactions that the caller
 * begins are left as they are.
 */
export function settingsInEachTransaction(client: Client, settings: Readonly<Record<string, string>>): void {
  pooled.add(client);
  const query = client.query.bind(client) as Query;
  const local = Object.entries(settings).map(([name, value]) => `set local ${name} = ${quoteLiteral(value)}`);
  // The session's default is the server's, which may be serializable.
  const begin = ['begin isolation level read committed', ...local].join('; ');
  let inTransaction = false;
  const wrapped: Query = async (given, values) => {
    const { name: _, ...config } = typeof given === 'string' ? { text: given, name: '' } : given;
    const text = config.text ?? '';
    if (/^\s*begin\b/i.test(text)) inTransaction = true;
    if (inTransaction) {
      if (/^\s*(commit|rollback)\s*$/i.test(text)) inTransaction = false;
      return await query(config, values);
    }
    // Queued in one go: no statement of another caller comes between.
    const [begun, result, ended] = [query(begin), query(config, values), query('commit')];
    const outcomes = await Promise.allSettled([begun, result, ended]);
    for (const outcome of [outcomes[1], outcomes[0], outcomes[2]])
      if (outcome.status === 'rejected') throw outcome.reason;
    return await result;
  };
  Object.assign(client, { query: wrapped });
}
