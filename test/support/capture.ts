import type { Client } from 'pg';
import type { Config } from '../../src/config/config.ts';
import { loadConfig } from '../../src/config/load.ts';
import { createLogger } from '../../src/observe/log.ts';
import type { OutboxEvent } from '../../src/pipeline/capture/event.ts';
import type { Source } from '../../src/pipeline/capture/source.ts';
import { readSlot, type Slot } from '../../src/pipeline/capture/streaming/slot.ts';
import { ReplicationStream, type StreamOptions } from '../../src/pipeline/capture/streaming/stream.ts';
import { TablePass, type TablePassOptions } from '../../src/pipeline/capture/polling/table-pass.ts';
import { clientConfig, connect, disconnect } from '../../src/postgres/connect.ts';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { Relay, type RelayEnd } from '../../src/relay.ts';
import { freshDatabase, type FreshDatabase } from './database.ts';
import type { ReceivedMessage } from './judge.ts';
import { MemoryPublisher } from './memory-publisher.ts';
import { RelayProcess } from './relay-process.ts';
import { until } from './until.ts';

export interface CaptureOptions {
  readonly serverUrl?: string;
  /** The relay's variables over those of the scene. */
  readonly env?: Readonly<Record<string, string>>;
  /** Type of the payload column; default: jsonb. */
  readonly payload?: 'jsonb' | 'json' | 'text' | 'bytea';
  /** Runs before the migration, e.g. to make a table that is adopted. */
  readonly prepare?: string;
}

/** A migrated database of its own with a connection, for tests of what stands between PostgreSQL and the broker. */
export class CaptureScene {
  readonly database: FreshDatabase;
  readonly env: Readonly<Record<string, string>>;
  readonly config: Config;
  readonly client: Client;
  private readonly relays: RunningRelay[] = [];

  private constructor(database: FreshDatabase, env: Readonly<Record<string, string>>, client: Client) {
    this.database = database;
    this.env = env;
    this.config = loadConfig({ ...env });
    this.client = client;
  }

  static async open(options: CaptureOptions = {}): Promise<CaptureScene> {
    const { payload = 'jsonb', prepare, serverUrl } = options;
    const database = await freshDatabase(serverUrl);
    const env = {
      DATABASE_URL: `${database.url}?sslmode=disable`,
      SLOT_NAME: database.name,
      BROKER: 'stdout',
      ROUTE_TOPIC: 'events',
      HTTP_HOST: '127.0.0.1',
      HTTP_PORT: '0',
      ...options.env,
    };
    const connection = loadConfig({ ...env }).database.connection();
    const client = await connect(connection, {
      applicationName: 'test',
      signal: new AbortController().signal,
    });
    const scene = new CaptureScene(database, env, client);
    try {
      if (prepare !== undefined) await client.query(prepare);
      await migrate(client, { ...scene.config, adopt: prepare !== undefined, dryRun: false });
      if (payload !== 'jsonb')
        await client.query(`alter table outbox alter column payload type ${payload} using null`);
      return scene;
    } catch (error) {
      await scene.close();
      throw error;
    }
  }

  /** Drains the relays of this process that still run, and drops the database. */
  async close(): Promise<void> {
    try {
      await Promise.all(this.relays.map(async (relay) => await relay.stop()));
    } finally {
      await disconnect(this.client);
      await this.database.drop();
    }
  }

  /** Rows as text. */
  async sql<Column extends string = string>(
    text: string,
    values: unknown[] = [],
  ): Promise<Record<Column, string | null>[]> {
    return (await this.client.query<Record<Column, string | null>>(text, values)).rows;
  }

  /** The first column of the first row, as text. */
  async value(text: string, values: unknown[] = []): Promise<string | null> {
    const [row] = await this.sql(text, values);
    return row === undefined ? null : (Object.values(row)[0] ?? null);
  }

  /** So many events, each a transaction of its own, ten keys; the payload tells the number. */
  async insert(count: number, first = 1): Promise<void> {
    for (let n = first; n < first + count; n++)
      await this.sql(`select outbox_emit('order', $1, 'Placed', $2)`, [`key-${n % 10}`, `{"n": ${n}}`]);
  }

  async count(table: string): Promise<number> {
    return Number(await this.value(`select count(*) from ${table}`));
  }

  async slot(): Promise<Slot | undefined> {
    return await readSlot(this.client, this.config.slotName);
  }

  /** Another slot at the present end of the log, for tests of the stream alone. */
  async makeSlot(name = this.config.slotName): Promise<bigint> {
    const lsn = await this.value(`select lsn from pg_create_logical_replication_slot($1, 'pgoutput')`, [
      name,
    ]);
    return parseLsn(lsn ?? '');
  }

  async endWalSender(): Promise<void> {
    await this.sql('select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1', [
      this.config.slotName,
    ]);
  }

  /** While a relay reads it, which may be faster in opening it again. */
  async dropSlot(): Promise<void> {
    await until(
      async () => {
        await this.endWalSender();
        await this.sql('select pg_drop_replication_slot($1)', [this.config.slotName]);
        return true;
      },
      { what: 'the slot to be dropped', intervalMs: 1 },
    );
  }

  async openStream(
    changes: Partial<StreamOptions> & Pick<StreamOptions, 'startLsn'>,
    signal = new AbortController().signal,
  ): Promise<ReplicationStream> {
    const { outbox, slotName, publicationName } = this.config;
    return await ReplicationStream.open(
      {
        clientConfig: clientConfig(this.config.database.connection()),
        slotName,
        publicationName,
        outbox: {
          schema: outbox.schema,
          table: outbox.table,
          seqColumn: outbox.columns.seq,
          xidColumn: outbox.columns.xid,
          requiredColumns: [outbox.columns.id, outbox.columns.payload],
          addressColumns: [],
          oids: new Set(),
          others: new Set<number>(),
          alone: true,
          asked: new Map<string, string>(),
        },
        maxEventBytes: this.config.maxEventBytes,
        walSenderTimeoutMs: 60_000,
        ...changes,
      },
      signal,
    );
  }

  /** What a snapshot of now sees, read as at a first start. */
  async tablePass(changes: Partial<TablePassOptions> = {}): Promise<TablePass> {
    const snapshot = (await this.value('select pg_current_snapshot()::text')) ?? '';
    return new TablePass({
      config: this.config,
      client: this.client,
      rows: { snapshot, horizon: undefined },
      afterSeq: 0,
      ...changes,
    });
  }

  /** The relay in this process. */
  relay(publisher = new MemoryPublisher(), env: Readonly<Record<string, string>> = {}): RunningRelay {
    const relay = new RunningRelay(loadConfig({ ...this.env, ...env }), publisher);
    this.relays.push(relay);
    return relay;
  }

  /** The same, and it streams already. */
  async streaming(
    publisher?: MemoryPublisher,
    env?: Readonly<Record<string, string>>,
  ): Promise<RunningRelay> {
    const relay = this.relay(publisher, env);
    await relay.logged(/mode: streaming/);
    return relay;
  }

  /** The relay as a child process that prints what it delivers. */
  relayProcess(
    options: { fault?: string; script?: string; env?: Record<string, string> } = {},
  ): RelayProcess {
    return RelayProcess.start({ ...options, env: { ...this.env, ...options.env } });
  }

  /** Starts a relay, lets it take the table over, and drains it: afterwards everything comes by the stream. */
  async handOver(): Promise<void> {
    const relay = await this.streaming();
    await relay.stop();
  }

  /** Text of the progress row's column. */
  async progress(column: string): Promise<string | null> {
    return await this.value(`select ${column}::text from outbox_relay_progress where slot_name = $1`, [
      this.config.slotName,
    ]);
  }

  async untilEmpty(timeoutMs = 20_000): Promise<void> {
    await until(async () => (await this.count('outbox')) === 0, { timeoutMs, what: 'an empty outbox' });
  }
}

export class RunningRelay {
  readonly publisher: MemoryPublisher;
  readonly logLines: string[] = [];
  readonly relay: Relay;
  private readonly stopping = new AbortController();
  private readonly ended: Promise<RelayEnd>;

  constructor(config: Config, publisher: MemoryPublisher) {
    this.publisher = publisher;
    const log = createLogger({
      level: 'info',
      format: 'json',
      write: (line) => this.logLines.push(line),
      now: Date.now,
    });
    this.relay = new Relay({
      config,
      log,
      version: 'test',
      stop: this.stopping.signal,
      createPublisher: (_config, events) => Promise.resolve(publisher.attach(events)),
    });
    this.ended = this.relay.run();
    this.ended.catch(() => undefined);
  }

  /** Which of the events of `CaptureScene.insert` arrived, in the order of their arrival. */
  get numbers(): number[] {
    return this.publisher.payloads.map((payload) => (JSON.parse(payload ?? '') as { n: number }).n);
  }

  /**
   * The first line of the log that matches and was written after line `from`. A slot is made only after every transaction
   * of the server has ended, also those of the tests beside this one.
   */
  async logged(pattern: RegExp, timeoutMs = 60_000, from = 0): Promise<string> {
    return await until(() => this.logLines.slice(from).find((line) => pattern.test(line)), {
      timeoutMs,
      what: () => `a line of the log like ${pattern}, among ${this.logLines.join('')}`,
    });
  }

  /** Drains and ends. */
  async stop(): Promise<RelayEnd> {
    this.stopping.abort();
    return await this.ended;
  }

  /** Rejects as `Relay.run` does, when nothing ever worked. */
  async end(): Promise<RelayEnd> {
    return await this.ended;
  }
}

/** Reads events until `enough` says so, and gives them back. Ends the source's reading, not its connection. */
export async function readEvents(
  source: Source,
  enough: number | ((events: readonly OutboxEvent[]) => boolean),
  timeoutMs = 20_000,
): Promise<OutboxEvent[]> {
  const events: OutboxEvent[] = [];
  const done = typeof enough === 'number' ? (): boolean => events.length >= enough : enough;
  const signal = AbortSignal.timeout(timeoutMs);
  for await (const batch of source.batches(signal)) {
    events.push(...batch.events);
    if (done(events)) return events;
  }
  if (signal.aborted) throw new Error(`not within ${timeoutMs} ms; ${events.length} events came`);
  return events;
}

/** What a relay printed, as a consumer's reading. Lines that a kill has cut off count as not delivered. */
export function printed(relays: readonly RelayProcess[]): ReceivedMessage[] {
  return relays.flatMap(({ stdout }) =>
    stdout.flatMap((line) => {
      try {
        const { id, key, payload } = JSON.parse(line) as ReceivedMessage;
        return [{ id, key, payload }];
      } catch {
        return [];
      }
    }),
  );
}
