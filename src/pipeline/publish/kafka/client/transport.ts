import type { Socket } from 'node:net';

import type { KafkaConfig } from '../../../../config/config.ts';
import type { ApiVersions, Request } from '../protocol.ts';

export interface TransportOptions {
  readonly host: string;
  readonly port: number;
  readonly config: KafkaConfig;
  /** From the first packet to the end of the login, milliseconds; whoever opens it has this deadline as well. */
  readonly connectTimeoutMs: number;
  /** The socket has ended, perhaps more than once, and perhaps before `connect` has settled. */
  readonly onClose: (reason: Error) => void;
}

/**
 * What the relay uses of a client library: one connection to one broker, with its TLS, its login and its framing. What is
 * in a request, how long it may take and what an answer means is the same for all of them, and decided elsewhere.
 */
export interface Transport {
  /** Socket, TLS and login; once. @throws what the library throws; `connectError` makes sense of it. */
  connect(): Promise<ApiVersions>;
  /**
   * Sends a request at once, behind those sent before. The body must not change before it settles. Without a deadline of its own.
   * @returns what follows the correlation id. @throws when the connection ends first.
   */
  request(request: Request): Promise<Buffer>;
  /** The broker limits the session (KIP-368), and it is about to end. */
  readonly needsAuthentication: boolean;
  /** Logs in again; nothing else may be sent meanwhile. */
  authenticate(): Promise<void>;
  /** Ends the connection at once. */
  destroy(reason: Error): void;
}

/** How much of a session passes before the next login. */
export const SESSION_SHARE = 0.8;
const KEEP_ALIVE_MS = 60_000;

export async function loadTransport(
  client: KafkaConfig['client'],
): Promise<(options: TransportOptions) => Transport> {
  // On demand: nobody pays for the client that is not in use.
  if (client === 'platformatic') {
    const { PlatformaticTransport } = await import('./platformatic.ts');
    return (options) => new PlatformaticTransport(options);
  }
  const { KafkajsTransport } = await import('./kafkajs-transport.ts');
  return (options) => new KafkajsTransport(options);
}

export function watchSocket(socket: Socket, onClose: (reason: Error) => void): void {
  socket.setKeepAlive(true, KEEP_ALIVE_MS);
  socket.setNoDelay(true);
  socket.once('error', onClose);
  const closed = (): void => onClose(new Error('the broker closed the connection'));
  socket.once('close', closed);
  socket.once('end', closed);
}
