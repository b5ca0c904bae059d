import type { KafkaConfig } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';
import { loadTransport, type Transport, type TransportOptions } from './client/transport.ts';
import { connectError } from './errors.ts';
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
import {
  type ApiVersions,
  decodeMetadata,
  decodeProduce,
  encodeMetadata,
  METADATA,
  type MetadataAnswer,
  PRODUCE,
  type ProduceAnswer,
  type Request,
} from './protocol.ts';
import type { ProducerEpoch } from './sequences.ts';

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

/**
 * One authenticated connection to one broker. Every request has its own deadline, and a request that misses it ends the
 * connection: an answer that might still come must never be taken for the answer of something else.
 */
export class BrokerLink {
  readonly address: Address;
  private readonly transport: Transport;
  private readonly waiting = new Set<(error: Error) => void>();
  private closedBy: Error | undefined;
  private versions: ApiVersions = {};
  private login: Promise<void> | undefined;
  private readonly closeListeners: ((reason: Error) => void)[] = [];

  /** @throws RelayError with the consequence of what went wrong. */
  static async open(address: Address, options: LinkOptions): Promise<BrokerLink> {
    const link = new BrokerLink(address, options, await loadTransport(options.config.client));
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

  private constructor(
    address: Address,
    { config, connectTimeoutMs }: LinkOptions,
    create: (options: TransportOptions) => Transport,
  ) {
    this.address = address;
    const onClose = (reason: Error): void => this.destroy(reason);
    this.transport = create({ ...address, config, connectTimeoutMs, onClose });
  }

  /** Called once, when the connection has ended for whatever reason. */
  onClose(listener: (reason: Error) => void): void {
    if (this.closedBy === undefined) this.closeListeners.push(listener);
    else listener(this.closedBy);
  }

  get needsAuthentication(): boolean {
    return this.transport.needsAuthentication;
  }

  /** Logs in again when the broker limits the session (KIP-368). */
  async authenticate(deadlineMs: number): Promise<void> {
    // Once for all who want it: brokers take nothing else while a login is under way.
    this.login ??= this.withDeadline(this.transport.authenticate(), deadlineMs, 're-authentication').finally(
      () => (this.login = undefined),
    );
    await this.login;
  }

  /**
   * Sends batches; `body` must not change before this settles. Does not log in by itself: whoever sends asks for the lease after that.
   * @throws when the connection ends first; then nobody knows what the broker did.
   */
  async produce(body: Buffer, deadlineMs: number): Promise<ProduceAnswer> {
    const answer = this.transport.request({ ...PRODUCE, body });
    return decodeProduce(await this.withDeadline(answer, deadlineMs, PRODUCE.name));
  }

  /** Whether this broker speaks what the two requests below need. */
  get givesProducerEpochs(): boolean {
    return [FIND_COORDINATOR, INIT_PRODUCER_ID].every((api) =>
      speaks(this.versions, api.apiKey, api.version),
    );
  }

  async findCoordinator(transactionalId: string, deadlineMs: number): Promise<CoordinatorAnswer> {
    const body = encodeFindCoordinator(transactionalId);
    const request = { ...FIND_COORDINATOR, body };
    return decodeFindCoordinator(await this.ask(request, deadlineMs));
  }

  /** A producer id and its next epoch; the broker has to be the coordinator of the transactional id. */
  async initProducerId(
    transactionalId: string,
    current: ProducerEpoch | undefined,
    deadlineMs: number,
  ): Promise<ProducerEpochAnswer> {
    const body = encodeInitProducerId(transactionalId, current);
    const request = { ...INIT_PRODUCER_ID, body };
    return decodeInitProducerId(await this.ask(request, deadlineMs));
  }

  /** Brokers, and the topics named (none when empty). Topics that don't exist are created if the cluster does so. */
  async metadata(topics: readonly string[], deadlineMs: number): Promise<MetadataAnswer> {
    return decodeMetadata(await this.ask({ ...METADATA, body: encodeMetadata(topics) }, deadlineMs));
  }

  /** Ends the connection at once; what is outstanding fails with `reason`. */
  destroy(reason: Error): void {
    if (this.closedBy !== undefined) return;
    this.closedBy = reason;
    this.transport.destroy(reason);
    for (const reject of this.waiting) reject(reason);
    this.waiting.clear();
    for (const listener of this.closeListeners.splice(0)) listener(reason);
  }

  private async handshake(): Promise<void> {
    const versions = await this.transport.connect();
    checkVersions(versions);
    this.versions = versions;
  }

  private async ask(request: Request, deadlineMs: number): Promise<Buffer> {
    if (this.needsAuthentication) await this.authenticate(deadlineMs);
    return await this.withDeadline(this.transport.request(request), deadlineMs, request.name);
  }

  /** A client may leave promises pending for ever when a connection ends in the middle of a handshake. */
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
    // The client may still reject it after the connection has ended, when nobody waits for it any more.
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
  for (const { apiKey, version } of [PRODUCE, METADATA]) {
    if (!speaks(versions, apiKey, version)) {
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
