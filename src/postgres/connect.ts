import { Socket } from 'node:net';
import { Client, type ClientConfig, type CustomTypesConfig } from 'pg';
import type { DatabaseConnection } from '../config/config.ts';
import { comesThroughPooler, refusesOptions, settingsInEachTransaction } from './pooler.ts';
import { type Tls, isTlsRefusal, tlsAttempts } from './tls.ts';

/**
 * Session settings that decide how a value looks as text. Both sources, stream and table, must print the same bytes
 * whatever the role, the database or the server has as defaults.
 */
const TEXT_SETTINGS: Readonly<Record<string, string>> = {
  timezone: 'UTC',
  DateStyle: 'ISO, MDY',
  IntervalStyle: 'postgres',
  bytea_output: 'hex',
  extra_float_digits: '1',
};

/** Limits of the relay's own statements, so that none can wait for ever or hold a lock or a snapshot. */
const CONTROL_SETTINGS: Readonly<Record<string, string>> = {
  statement_timeout: '60s',
  lock_timeout: '10s',
  idle_in_transaction_session_timeout: '60s',
  // A role's default would cut connections that wait: for events, or beside a slot in the making.
  idle_session_timeout: '0',
  // A role's default of serializable would make the clean-up fail with conflicts.
  default_transaction_isolation: 'read committed',
  // A policy that hides rows from the relay would lose them without a word: an error instead.
  row_security: 'off',
  // Compiling a statement of a millisecond costs a hundred.
  jit: 'off',
};

/** Every value as the text that the server sent: nothing is parsed and printed again. */
const TEXT_TYPES: CustomTypesConfig = { getTypeParser: () => (value: unknown) => value };

/** Above statement_timeout: it ends a wait only when the server or the way to it is gone without a word. */
const QUERY_TIMEOUT_MS = 65_000;

const KEEP_ALIVE_DELAY_MS = 10_000;

const sockets = new WeakMap<Client, Socket>();

/** Configuration for one attempt. `tls` is one of `tlsAttempts(connection)`; by default the first. */
export function clientConfig(
  connection: DatabaseConnection,
  tls: Tls | undefined = tlsAttempts(connection)[0],
  settings: Readonly<Record<string, string>> = {},
): ClientConfig {
  return {
    host: connection.host,
    port: connection.port,
    database: connection.database,
    user: connection.user,
    // A function, because with `undefined` the driver looks into PGPASSWORD and ~/.pgpass on its own.
    password: () => connection.password ?? '',
    ssl: tls ?? false,
    connectionTimeoutMillis: connection.connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_DELAY_MS,
    types: TEXT_TYPES,
    // In the startup packet: no round trip, and nobody can forget it after a reconnect.
    options: startupOptions({ ...TEXT_SETTINGS, ...settings }),
  };
}

/**
 * Tries the ways that sslmode allows until one succeeds. Only a refusal that concerns TLS leads to the next; a wrong
 * password or a dead host does not. Throws what the last attempt threw.
 */
export async function attemptEach<T>(
  connection: DatabaseConnection,
  open: (tls: Tls) => Promise<T>,
): Promise<T> {
  const attempts = tlsAttempts(connection);
  for (const [index, tls] of attempts.entries()) {
    try {
      return await open(tls);
    } catch (error) {
      if (index === attempts.length - 1 || !isTlsRefusal(error)) throw error;
    }
  }
  throw new Error('no way to connect');
}

/**
 * Opens a connection for the relay's own statements. Results are raw text for every type. Rejects with the server's or
 * the socket's error (see `errors/policy.ts`), within `connectTimeoutMs`, or with the signal's reason. The signal also
 * cuts the connection later. A connection that breaks while idle emits `error` and `end`; it never ends the process.
 */
export async function connect(
  connection: DatabaseConnection,
  options: {
    readonly applicationName: string;
    readonly signal: AbortSignal;
    /** Ends the attempt alone: a connection that is open outlives it. */
    readonly attempt?: AbortSignal;
    /** Session settings over the usual ones. */
    readonly settings?: Readonly<Record<string, string>>;
    /** Longer than its `statement_timeout`. */
    readonly queryTimeoutMs?: number;
  },
): Promise<Client> {
  const settings = { ...CONTROL_SETTINGS, ...options.settings };
  return await attemptEach(connection, async (tls) => {
    const config = {
      ...clientConfig(connection, tls, settings),
      application_name: options.applicationName,
      query_timeout: options.queryTimeoutMs ?? QUERY_TIMEOUT_MS,
    };
    const withSettings = ({ client, pooled }: Opened): Client => {
      if (pooled) settingsInEachTransaction(client, { ...TEXT_SETTINGS, ...settings });
      return client;
    };
    try {
      return withSettings(await openClient(config, options));
    } catch (error) {
      if (!refusesOptions(error)) throw error;
      return withSettings(await openClient({ ...config, options: '' }, options));
    }
  });
}

interface Opened {
  readonly client: Client;
  readonly pooled: boolean;
}

async function openClient(
  config: ClientConfig,
  { signal, attempt = signal }: { readonly signal: AbortSignal; readonly attempt?: AbortSignal },
): Promise<Opened> {
  signal.throwIfAborted();
  attempt.throwIfAborted();
  const socket = new Socket();
  const client = new Client({ ...config, stream: () => socket });
  sockets.set(client, socket);
  // Without a listener a broken connection would be an uncaught exception. Who uses the client gets the same error
  // from the query in flight, or adds a listener of its own.
  client.on('error', () => undefined);
  const abort = (): void => void socket.destroy();
  signal.addEventListener('abort', abort, { once: true });
  attempt.addEventListener('abort', abort, { once: true });
  socket.once('close', () => signal.removeEventListener('abort', abort));
  try {
    await client.connect();
    return { client, pooled: await comesThroughPooler(client) };
  } catch (error) {
    socket.destroy();
    signal.throwIfAborted();
    throw error;
  } finally {
    if (attempt !== signal) attempt.removeEventListener('abort', abort);
  }
}

/** Says goodbye, and cuts the socket when the server does not answer within `deadlineMs`. Never rejects. Idempotent. */
export async function disconnect(client: Client, deadlineMs = 1000): Promise<void> {
  const socket = sockets.get(client);
  const timer = setTimeout(() => socket?.destroy(), deadlineMs);
  await client.end().catch(() => undefined);
  clearTimeout(timer);
  socket?.destroy();
}

function startupOptions(settings: Readonly<Record<string, string>>): string {
  // https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS: a backslash escapes a space.
  return Object.entries(settings)
    .map(([name, value]) => `-c ${name}=${value.replace(/[\\ ]/g, '\\$&')}`)
    .join(' ');
}
