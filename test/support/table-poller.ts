import type { Client } from 'pg';
import type { Config } from '../../src/config/config.ts';
import { TablePoll } from '../../src/pipeline/capture/polling/table-poll.ts';
import { until } from './until.ts';

export interface Statement {
  readonly text: string;
  readonly values: readonly unknown[];
  readonly tookMs: number;
}

/** The settings of the relay's own connection that matter to plans. */
export const PLAN_SETTINGS = 'set enable_seqscan = off; set enable_bitmapscan = off';

/** The same connection, with something that happens after each statement of its user. */
export function afterEachQuery(client: Client, then: (text: string) => Promise<void>): Client {
  const run = client.query.bind(client) as (text: unknown, values?: unknown[]) => Promise<unknown>;
  const query = async (text: string, values: unknown[] = []): Promise<unknown> => {
    const result = await run(text, values);
    await then(text);
    return result;
  };
  const get = (target: Client, name: string | symbol): unknown =>
    name === 'query' ? query : Reflect.get(target, name);
  return new Proxy(client, { get });
}

/** The same connection, and all that is asked on it. */
export function recording(client: Client): { client: Client; statements: Statement[] } {
  const statements: Statement[] = [];
  const run = client.query.bind(client) as (text: unknown, values?: unknown[]) => Promise<unknown>;
  const query = async (text: string, values: unknown[] = []): Promise<unknown> => {
    const beganMs = performance.now();
    const result = await run(text, values);
    statements.push({ text, values, tookMs: performance.now() - beganMs });
    return result;
  };
  const get = (target: Client, name: string | symbol): unknown =>
    name === 'query' ? query : Reflect.get(target, name);
  return { client: new Proxy(client, { get }), statements };
}

/**
 * Polls a table in this process, removes or marks what it reads, and remembers every statement: for tests of how a look
 * is made and what it costs.
 */
export class TablePoller {
  readonly delivered: number[] = [];
  /** When they were committed, as far as can be told, milliseconds. */
  readonly committedAtMs: number[] = [];
  readonly statements: Statement[];
  private readonly client: Client;
  private readonly config: Config;
  private readonly stopping = new AbortController();
  private readonly ended: Promise<void>;
  private error: unknown;
  private source: TablePoll | undefined;

  /** The connection is the poller's alone until it has stopped. */
  constructor(config: Config, client: Client) {
    this.config = config;
    this.client = client;
    const recorded = recording(client);
    this.statements = recorded.statements;
    this.ended = this.poll(recorded.client).catch((error: unknown) => void (this.error = error));
  }

  /** The looks at the table so far, without what else a poll asks. */
  get looks(): Statement[] {
    return this.statements.filter(({ text }) => text.includes('took_ms'));
  }

  /** Where the looks with a lower bound began, oldest first. */
  get bounds(): number[] {
    return this.looks.flatMap(({ values }) => (values.length > 1 ? [Number(values[1])] : []));
  }

  /** Fails with the poller's error. */
  async wait(done: () => boolean, what: string, timeoutMs = 30_000): Promise<void> {
    await until(
      () => {
        if (this.error !== undefined) throw this.error;
        return done();
      },
      { what, timeoutMs, intervalMs: 5 },
    );
  }

  wake(): void {
    this.source?.wake();
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await this.ended;
    if (this.error !== undefined) throw this.error;
  }

  private async poll(recorded: Client): Promise<void> {
    const { config, client } = this;
    await client.query(PLAN_SETTINGS);
    const flush = async (): Promise<void> => void (await client.query('select pg_current_xact_id()'));
    const source = (this.source = new TablePoll({ config, client: recorded, flush }));
    const done = config.cleanup === 'mark' ? 'update outbox set delivered_at = now()' : 'delete from outbox';
    for await (const { events } of source.batches(this.stopping.signal)) {
      const seqs = events.map(({ seq }) => seq);
      this.delivered.push(...seqs);
      this.committedAtMs.push(...events.map(({ transaction }) => transaction.committedAtMs));
      await client.query(`${done} where seq = any($1)`, [seqs]);
      source.removed(events);
    }
  }
}
