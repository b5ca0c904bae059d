import { connect, credentials } from 'amqplib';
import type { ChannelModel, ConfirmChannel, SocketOptions } from 'amqplib';
import type { RabbitmqConfig } from '../../../config/config.ts';
import { tlsOptions } from '../../../config/tls.ts';
import { RelayError } from '../../../errors/errors.ts';
import { messageOf } from '../../../errors/thrown.ts';
import { connectError } from './errors.ts';
import { SOCKET_BUFFER_BYTES } from './frame-writer.ts';

/** For one URL: name look-up, TCP, TLS, login and the first channel. */
const CONNECT_TIMEOUT_MS = 10_000;
/** Seconds. A dead broker is noticed after two to three of them. */
const HEARTBEAT_S = 10;

export interface Connection {
  readonly model: ChannelModel;
  readonly confirms: ConfirmChannel;
  /** Host and port. */
  readonly where: string;
  /** Destroys the socket at once. */
  readonly destroy: () => void;
}

interface Attempt {
  readonly config: RabbitmqConfig;
  readonly signal: AbortSignal;
  readonly connectedBefore: boolean;
}

/** Tries every URL in turn. Throws a RelayError: the one that needs a person when there is one, else the last. */
export async function openConnection(attempt: Attempt): Promise<Connection> {
  const failures: RelayError[] = [];
  for (const url of attempt.config.urls()) {
    attempt.signal.throwIfAborted();
    const address = new URL(url);
    try {
      return await openOne(address, attempt);
    } catch (error) {
      failures.push(connectError(error, address.host, attempt.connectedBefore));
    }
  }
  attempt.signal.throwIfAborted();
  const worst = failures.find((failure) => failure.consequence === 'stop') ?? failures.at(-1);
  throw (
    worst ?? new RelayError('stop', 'rabbitmq-url', 'no URL of RabbitMQ', { advice: 'Set RABBITMQ_URL.' })
  );
}

async function openOne(url: URL, attempt: Attempt): Promise<Connection> {
  // Only the socket's own signal can end a handshake that makes no progress, and a half-open socket later: the
  // library ends it politely, which waits for ever for a peer that is gone.
  const socket = new AbortController();
  const destroy = (): void => socket.abort();
  attempt.signal.addEventListener('abort', destroy, { once: true });
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    destroy();
  }, CONNECT_TIMEOUT_MS);
  try {
    const options = {
      ...socketOptions(url, attempt.config),
      signal: socket.signal,
      writableHighWaterMark: SOCKET_BUFFER_BYTES, // for net.connect
      highWaterMark: SOCKET_BUFFER_BYTES, // for tls.connect
    };
    const model = await connect(withHeartbeat(url), options);
    model.on('error', () => undefined); // Before anything else is awaited: without a listener it ends the process.
    const confirms = await model.createConfirmChannel();
    return { model, confirms, where: url.host, destroy };
  } catch (error) {
    destroy();
    throw timedOut ? new Error(`no connection within ${CONNECT_TIMEOUT_MS} ms`, { cause: error }) : error;
  } finally {
    clearTimeout(timer);
    attempt.signal.removeEventListener('abort', destroy);
  }
}

function withHeartbeat(url: URL): string {
  const complete = new URL(url);
  if (!complete.searchParams.has('heartbeat')) complete.searchParams.set('heartbeat', String(HEARTBEAT_S));
  return complete.href;
}

function socketOptions(url: URL, config: RabbitmqConfig): SocketOptions {
  return {
    noDelay: true,
    keepAlive: true,
    keepAliveDelay: 10_000,
    clientProperties: { product: 'outbox-relay', connection_name: 'outbox-relay' },
    credentials: config.auth === 'external' ? credentials.external() : login(url),
    ...(url.protocol === 'amqps:' && config.tls !== undefined ? tlsOptions(config.tls) : {}),
  };
}

/** Not left to the library: it decodes them as Latin-1, which breaks passwords beyond ASCII. */
function login(url: URL): NonNullable<SocketOptions['credentials']> {
  if (url.username === '' && url.password === '') return credentials.plain('guest', 'guest');
  try {
    return credentials.plain(decodeURIComponent(url.username), decodeURIComponent(url.password));
  } catch (error) {
    throw new RelayError('stop', 'rabbitmq-url', `user or password in RABBITMQ_URL: ${messageOf(error)}`, {
      advice: 'Percent-encode special characters in user and password; a "%" is written "%25".',
    });
  }
}
