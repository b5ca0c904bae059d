import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';

import type { KafkaConfig } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';
import { connectError } from './errors.ts';
import {
  type ApiVersions,
  decodeApiVersions,
  decodeMetadata,
  decodeProduce,
  type KafkaConnection,
  METADATA_VERSION,
  type MetadataAnswer,
  newConnection,
  PRODUCE_VERSION,
  type ProduceAnswer,
} from './kafkajs.ts';
import {
  type CoordinatorAnswer,
  decodeFindCoordinator,
  decodeInitProducerId,
  encodeFindCoordinator,
  encodeInitProducerId,
  FIND_COORDINATOR,
  INIT_PRODUCER_ID,
  type ProducerEpochAnswer,
} from './producer-epoch.ts';
import { saslOptions, tlsOptions } from './security.ts';
import type { ProducerEpoch } from './sequences.ts';

const API_KEY = { produce: 0, metadata: 3, apiVersions: 18, saslAuthenticate: 36 } as const;
const KEEP_ALIVE_MS = 60_000;

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface LinkOptions {
  readonly config: KafkaConfig;
  /** From the first packet to the end of the authentication, milliseconds. */
  readonly connectTimeoutMs: number;
  readonly signal: AbortSignal;
}

/** One whose body stands behind the usual header. */
interface PlainRequest {
  readonly apiKey: number;
  readonly version: number;
  readonly name: string;
  readonly body: Buffer;
}

/**
 * One authenticated connection to one broker. Every request has its own deadline, and a request that misses it ends the
 * connection: an answer that might still come must never be taken for the answer of something else.
 */
export class BrokerLink {
  readonly address: Address;
  private readonly connection: KafkaConnection;
  private readonly waiting = new Set<(error: Error) => void>();
  private closedBy: Error | undefined;
  private versions: ApiVersions = {};
  private readonly closeListeners: ((reason: Error) => void)[] = [];

  /** @throws RelayError with the consequence of what went wrong. */
  static async open(address: Address, options: LinkOptions): Promise<BrokerLink> {
    const link = new BrokerLink(address, options);
    const late = (): void => link.destroy(new Error(`not ready after ${options.connectTimeoutMs} ms`));
    const deadline = setTimeout(late, options.connectTimeoutMs);
    const abort = (): void => link.destroy(new Error('given up'));
    options.signal.addEventListener('abort', abort, { once: true });
    try {
      if (options.signal.aborted) throw new Error('given up');
      await link.orClosed(link.handshake());
      return link;
    } catch (error) {
      const cause = link.closedBy ?? error;
      link.destroy(new Error('not connected'));
      throw connectError(error instanceof RelayError ? error : cause, `${address.host}:${address.port}`);
    } finally {
      clearTimeout(deadline);
      options.signal.removeEventListener('abort', abort);
    }
  }

  private socket: Socket | undefined;

  private constructor(address: Address, { config, connectTimeoutMs }: LinkOptions) {
    this.address = address;
    this.connection = newConnection({
      ...address,
      clientId: config.clientId,
      ssl: config.ssl === undefined ? undefined : tlsOptions(config.ssl),
      sasl: saslOptions(config.sasl),
      socketFactory: (target) => this.newSocket(target),
      connectionTimeout: connectTimeoutMs,
      requestTimeout: config.requestTimeoutMs,
      // Its own deadlines leave the connection in use; see the class comment.
      enforceRequestTimeout: false,
    });
    // Looks after requests that wait for a free place; nothing ever waits here. kafkajs arms it with a negative time
    // after every answer, which wakes the process and makes Node print a warning.
    this.connection.requestQueue.scheduleCheckPendingRequests = () => undefined;
  }

  get closed(): boolean {
    return this.closedBy !== undefined;
  }

  /** Called once, when the connection has ended for whatever reason. */
  onClose(listener: (reason: Error) => void): void {
    if (this.closedBy === undefined) this.closeListeners.push(listener);
    else listener(this.closedBy);
  }

  /** Unique on this connection only. That is enough: the connection never opens a second socket, so an answer can't cross over. */
  nextCorrelationId(): number {
    return this.connection.nextCorrelationId();
  }

  /** Logs in again when the broker limits the session (KIP-368); resolves at once otherwise. */
  get needsAuthentication(): boolean {
    return !this.connection.isAuthenticated() && this.connectionHasSasl;
  }

  private get connectionHasSasl(): boolean {
    return (this.connection as { readonly sasl?: unknown }).sasl !== undefined;
  }

  async authenticate(deadlineMs: number): Promise<void> {
    await this.withDeadline(this.connection.authenticate(), deadlineMs, 're-authentication');
  }

  /**
   * Sends a whole request that carries `correlationId`; `frame` must not change before this settles.
   * @throws when the connection ends first; then nobody knows what the broker did.
   */
  async produce(frame: Buffer, correlationId: number, deadlineMs: number): Promise<ProduceAnswer> {
    const answer = new Promise<{ readonly payload: Buffer }>((resolve, reject) => {
      this.connection.requestQueue.push({
        entry: {
          apiKey: API_KEY.produce,
          apiName: 'Produce',
          apiVersion: PRODUCE_VERSION,
          correlationId,
          resolve,
          reject,
        },
        expectResponse: true,
        requestTimeout: deadlineMs,
        sendRequest: () => void this.connection.socket.write(frame),
      });
    });
    const { payload } = await this.withDeadline(answer, deadlineMs, 'Produce');
    return await decodeProduce(payload);
  }

  /** Whether this broker speaks what the two requests below need. */
  get givesProducerEpochs(): boolean {
    return [FIND_COORDINATOR, INIT_PRODUCER_ID].every((api) =>
      speaks(this.versions, api.apiKey, api.version),
    );
  }

  async findCoordinator(transactionalId: string, deadlineMs: number): Promise<CoordinatorAnswer> {
    const body = encodeFindCoordinator(transactionalId);
    const request = { ...FIND_COORDINATOR, name: 'FindCoordinator', body };
    return decodeFindCoordinator(await this.ask(request, deadlineMs));
  }

  /** A producer id and its next epoch; the broker has to be the coordinator of the transactional id. */
  async initProducerId(
    transactionalId: string,
    current: ProducerEpoch | undefined,
    deadlineMs: number,
  ): Promise<ProducerEpochAnswer> {
    const body = encodeInitProducerId(transactionalId, current);
    const request = { ...INIT_PRODUCER_ID, name: 'InitProducerId', body };
    return decodeInitProducerId(await this.ask(request, deadlineMs));
  }

  /** Brokers, and the topics named (none when empty). Topics that don't exist are created if the cluster does so. */
  async metadata(topics: readonly string[], deadlineMs: number): Promise<MetadataAnswer> {
    const body = encodeMetadata(topics);
    const request = { apiKey: API_KEY.metadata, version: METADATA_VERSION, name: 'Metadata', body };
    return await decodeMetadata(await this.ask(request, deadlineMs));
  }

  /** Ends the connection at once; what is outstanding fails with `reason`. */
  destroy(reason: Error): void {
    if (this.closedBy !== undefined) return;
    this.closedBy = reason;
    // With an error, so that kafkajs clears its connect timer and rejects what it holds.
    this.socket?.destroy(reason);
    this.connection.requestQueue.destroy();
    for (const reject of this.waiting) reject(reason);
    this.waiting.clear();
    for (const listener of this.closeListeners.splice(0)) listener(reason);
  }

  private newSocket(target: Address & { ssl: ConnectionOptions | null; onConnect: () => void }): Socket {
    const { host, port, ssl, onConnect } = target;
    const servername = isIP(host) === 0 ? { servername: host } : {};
    const socket =
      ssl === null
        ? connectTcp({ host, port }, onConnect)
        : connectTls({ host, port, ...servername, ...ssl }, onConnect);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.setNoDelay(true);
    socket.once('error', (error) => this.destroy(error));
    socket.once('close', () => this.destroy(new Error('the broker closed the connection')));
    socket.once('end', () => this.destroy(new Error('the broker closed the connection')));
    this.socket = socket;
    return socket;
  }

  private async handshake(): Promise<void> {
    await this.connection.connect();
    const answer = await decodeApiVersions(
      await this.request({
        apiKey: API_KEY.apiVersions,
        version: 1,
        name: 'ApiVersions',
        body: Buffer.alloc(0),
      }),
    );
    const versions: ApiVersions = Object.fromEntries(answer.apiVersions.map((v) => [v.apiKey, v]));
    checkVersions(versions);
    this.versions = versions;
    this.connection.setVersions(versions);
    this.connection.setSupportAuthenticationProtocol(API_KEY.saslAuthenticate in versions);
    await this.connection.authenticate();
  }

  private async ask(request: PlainRequest, deadlineMs: number): Promise<Buffer> {
    return await this.withDeadline(this.request(request), deadlineMs, request.name);
  }

  private async request({ apiKey, version, name, body }: PlainRequest): Promise<Buffer> {
    const encode = async (): Promise<{ buf: Buffer; buffer: Buffer }> =>
      await Promise.resolve({ buf: body, buffer: body });
    return await this.connection.send({
      request: { apiKey, apiVersion: version, apiName: name, encode },
      response: { decode: same, parse: same },
    });
  }

  /** kafkajs leaves some promises pending for ever when a connection ends in the middle of a handshake. */
  private async orClosed<T>(work: Promise<T>): Promise<T> {
    let fail: ((error: Error) => void) | undefined;
    try {
      return await Promise.race([
        work,
        new Promise<never>((_resolve, reject) => {
          fail = reject;
          this.waiting.add(reject);
        }),
      ]);
    } finally {
      if (fail !== undefined) this.waiting.delete(fail);
    }
  }

  private async withDeadline<T>(work: Promise<T>, deadlineMs: number, what: string): Promise<T> {
    const late = (): void => this.destroy(new Error(`no answer to ${what} within ${deadlineMs} ms`));
    const timer = setTimeout(late, deadlineMs);
    // kafkajs may still reject it after the connection has ended, when nobody waits for it any more.
    work.catch(() => undefined);
    try {
      if (this.closedBy !== undefined) throw this.closedBy;
      return await this.orClosed(work);
    } finally {
      clearTimeout(timer);
    }
  }
}

function checkVersions(versions: ApiVersions): void {
  const needed = [
    [API_KEY.produce, PRODUCE_VERSION],
    [API_KEY.metadata, METADATA_VERSION],
  ] as const;
  for (const [api, version] of needed) {
    if (!speaks(versions, api, version)) {
      throw new RelayError(
        'stop',
        'kafka-version',
        'The Kafka broker does not speak the needed protocol version',
        {
          advice: 'Use Kafka 2.1 or later.',
        },
      );
    }
  }
}

function speaks(versions: ApiVersions, apiKey: number, version: number): boolean {
  const offered = versions[apiKey];
  return offered !== undefined && offered.minVersion <= version && version <= offered.maxVersion;
}

function encodeMetadata(topics: readonly string[]): Buffer {
  const names = topics.map((topic) => Buffer.from(topic));
  const buffer = Buffer.alloc(4 + names.reduce((sum, name) => sum + 2 + name.length, 0) + 1);
  let at = buffer.writeInt32BE(names.length, 0);
  for (const name of names) {
    at = buffer.writeInt16BE(name.length, at);
    at += name.copy(buffer, at);
  }
  buffer[at] = 1; // allow the cluster to create the topic, as every producer does
  return buffer;
}

/** In place of the parsers that throw for the first error code of an answer. */
async function same<T>(decoded: T): Promise<T> {
  return await Promise.resolve(decoded);
}
