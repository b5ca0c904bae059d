import { setTimeout as sleep } from 'node:timers/promises';
import { Socket, type SocketConstructorOpts } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Client, ClientConfig } from 'pg';
import { LogicalReplicationService } from 'pg-logical-replication';
import { RelayError } from '../../../errors/errors.ts';
import { formatLsn } from '../../../postgres/lsn.ts';
import { readErrorResponse } from '../../../postgres/error-response.ts';
import type { Batch, Source } from '../source.ts';
import { TransactionAssembly, type OutboxIdentity } from './assembly.ts';
import { CopyBothSocket } from './copy-both-socket.ts';
import { decodePgoutput, toServerTime } from './decoder.ts';
import { evaluateLiveness, MIN_LIVENESS_DEADLINE_MS } from './liveness.ts';

export interface StreamOptions {
  readonly clientConfig: ClientConfig;
  readonly slotName: string;
  readonly publicationName: string;
  /** First position wanted: the own durable one. The server begins at this or at its confirmed one, whichever is later. */
  readonly startLsn: bigint;
  readonly outbox: OutboxIdentity;
  /** Up to here a row is always read whole. */
  readonly maxEventBytes: number;
  /** The server's wal_sender_timeout; 0: off. */
  readonly walSenderTimeoutMs: number;
  /** For tests: the shortest silence that counts. */
  readonly minLivenessDeadlineMs?: number;
}

const ERROR_RESPONSE = 0x45; // E
const COPY_BOTH_RESPONSE = 0x57; // W
const COPY_DATA = 0x64; // d
const COPY_DONE = 0x63; // c
const XLOG_DATA = 0x77; // w
const KEEPALIVE = 0x6b; // k
const XLOG_HEADER_BYTES = 25;
/** What the protocol puts around a row, rounded up. */
const FRAME_BYTES = 1_024;
/** A row up to here is parked whole, also when the application has deleted it; of a larger one the table has the values. */
const HELD_ROW_BYTES = 32 * 1_048_576;

/** Reads nearer together than this bring a packet each; waiting costs no delay when idle and doubles the throughput. */
const READ_SPACING_MS = 1;
/** After a read of so many bytes a backlog is being drained: larger reads cost both sides less, and nobody waits for one event. */
const BULK_READ_BYTES = 131_072;
const BULK_READ_SPACING_MS = 4;
/** The server answers before it begins to decode; later than this it is gone, or the way to it is. */
const START_DEADLINE_MS = 30_000;
/**
 * What the socket may hold until the next read. With the default of 64 KiB reads bring a hundred events, and the wait
 * between them limits the stream to half of what the server can send.
 */
const READ_AHEAD_BYTES = 524_288;
const STATUS_INTERVAL_MS = 10_000;

/**
 * One replication connection, from START_REPLICATION to its end. Never re-used: the library starts a second
 * subscription after the last position received, which skips what was not acknowledged.
 */
export class ReplicationStream implements Source {
  private readonly options: StreamOptions;
  private readonly service: LogicalReplicationService;
  private readonly assembly: TransactionAssembly;
  /** From the moment it connects; `socket` is what the library has made of it. */
  private readonly connection = new Socket({ highWaterMark: READ_AHEAD_BYTES } as SocketConstructorOpts);
  private socket: CopyBothSocket | undefined;
  private started = false;
  private acknowledged: bigint;
  private heardAtMs = performance.now();
  private askedAtMs = performance.now();
  private readingHeld = true;
  private statusTimer: NodeJS.Timeout | undefined;
  private frameError: Error | undefined;

  /** Connects and starts streaming, or throws. The signal ends the attempt alone. */
  static async open(options: StreamOptions, signal: AbortSignal): Promise<ReplicationStream> {
    signal.throwIfAborted();
    const stream = new ReplicationStream(options);
    const giveUp = (): void => void stream.connection.destroy(signal.reason as Error);
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      await stream.start();
      return stream;
    } catch (error) {
      await stream.close();
      throw error;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  private constructor(options: StreamOptions) {
    this.options = options;
    this.acknowledged = options.startLsn;
    this.assembly = new TransactionAssembly(options.outbox, options.startLsn);
    // Neither automatic acknowledgement nor the library's timer: both confirm what was received, not what is settled.
    this.service = new LogicalReplicationService(
      // Plain TCP; under TLS `pg` puts its own stream, with Node's default, on top of it.
      { ...options.clientConfig, stream: () => this.connection },
      {
        acknowledge: { auto: false, timeoutSeconds: 0 },
      },
    );
    this.service.on('error', (error) => this.socket?.fail(error));
  }

  private async start(): Promise<void> {
    const { slotName, startLsn, walSenderTimeoutMs } = this.options;
    await this.service.subscribe(
      new TakeOver((client) => this.takeOver(client)),
      slotName,
      formatLsn(startLsn),
    );
    const senderMs = walSenderTimeoutMs > 0 ? walSenderTimeoutMs / 3 : STATUS_INTERVAL_MS;
    // The server may have confirmed less than the start (a crash came between): told at once, a drain need not wait.
    this.sendStatus(false);
    this.statusTimer = setInterval(() => this.tick(), Math.min(STATUS_INTERVAL_MS, senderMs));
  }

  private async takeOver(client: Client): Promise<void> {
    const {
      slotName,
      publicationName,
      startLsn,
      maxEventBytes,
      minLivenessDeadlineMs: deadlineMs,
    } = this.options;
    const { connection } = client as unknown as { connection: { stream: Duplex } };
    const maxHeldBytes = Math.max(maxEventBytes + FRAME_BYTES, HELD_ROW_BYTES);
    const socket = new CopyBothSocket(connection.stream, maxHeldBytes);
    this.socket = socket;
    // By hand: a literal of the replication protocol knows no escapes, which quoteLiteral may use.
    const publication = `"${publicationName.replaceAll('"', '""')}"`.replaceAll("'", "''");
    socket.sendQuery(
      `START_REPLICATION SLOT "${slotName}" LOGICAL ${formatLsn(startLsn)} ` +
        `(proto_version '1', publication_names '${publication}')`,
    );
    const deadline = setTimeout(() => socket.fail(startTimeout()), deadlineMs ?? START_DEADLINE_MS);
    try {
      while (!this.started) await this.readFrames(socket);
    } finally {
      clearTimeout(deadline);
    }
  }

  async *batches(signal: AbortSignal): AsyncGenerator<Batch> {
    const socket = this.socket as CopyBothSocket;
    signal.addEventListener('abort', socket.wakeReader, { once: true });
    try {
      // What came in one packet with the answer to START_REPLICATION must not wait for the next one.
      yield this.assembly.take();
      let lastReadMs = 0;
      let lastBytes = 0;
      while (!signal.aborted) {
        const spacingMs = lastBytes < BULK_READ_BYTES ? READ_SPACING_MS : BULK_READ_SPACING_MS;
        if (performance.now() - lastReadMs < spacingMs) await sleep(spacingMs);
        this.readingHeld = false;
        lastBytes = await this.readFrames(socket, signal);
        lastReadMs = performance.now();
        this.readingHeld = true;
        yield this.assembly.take();
      }
    } finally {
      signal.removeEventListener('abort', socket.wakeReader);
    }
  }

  acknowledge(position: bigint): void {
    if (position <= this.acknowledged) return;
    this.acknowledged = position;
    this.sendStatus(false);
  }

  async close(): Promise<void> {
    clearInterval(this.statusTimer);
    this.socket?.fail(new Error('closed'));
    this.socket?.destroy();
    this.connection.destroy();
    await this.service.destroy().catch(() => undefined);
  }

  private async readFrames(socket: CopyBothSocket, signal?: AbortSignal): Promise<number> {
    const bytes = await socket.read(this.onFrame, signal);
    this.heardAtMs = performance.now();
    if (this.frameError) throw this.frameError;
    return bytes;
  }

  private readonly onFrame = (
    type: number,
    buffer: Buffer,
    start: number,
    end: number,
    leftOutBytes: number,
  ): void => {
    if (this.frameError) return;
    try {
      this.handleFrame(type, buffer, start, end, leftOutBytes);
    } catch (error) {
      this.frameError = error as Error;
    }
  };

  private handleFrame(type: number, buffer: Buffer, start: number, end: number, leftOutBytes: number): void {
    if (type === COPY_DATA) {
      if (buffer[start] === XLOG_DATA) {
        decodePgoutput(this.assembly, buffer, start + XLOG_HEADER_BYTES, end, leftOutBytes);
      } else if (buffer[start] === KEEPALIVE) {
        this.assembly.heard(buffer.readBigUInt64BE(start + 1));
        if (buffer[start + 17] === 1) this.sendStatus(false);
      }
    } else if (type === ERROR_RESPONSE) {
      throw readErrorResponse(buffer, start, end);
    } else if (type === COPY_BOTH_RESPONSE) {
      this.started = true;
    } else if (type === COPY_DONE) {
      throw new RelayError('retry', 'stream-ended', 'the server ended the replication stream', {
        advice: 'The relay connects again by itself; the server is probably shutting down.',
      });
    }
  }

  /** Runs beside reading, also while reading is held back: the server ends a connection that does not report. */
  private tick(): void {
    const nowMs = performance.now();
    if (this.readingHeld) this.heardAtMs = nowMs;
    const { walSenderTimeoutMs, minLivenessDeadlineMs = MIN_LIVENESS_DEADLINE_MS } = this.options;
    const deadlineMs = Math.max(minLivenessDeadlineMs, walSenderTimeoutMs);
    const { heardAtMs, askedAtMs, readingHeld } = this;
    const verdict = evaluateLiveness({ nowMs, heardAtMs, askedAtMs, deadlineMs, readingHeld });
    if (verdict === 'dead') {
      this.socket?.fail(
        new RelayError('retry', 'stream-silent', `the server was silent for ${deadlineMs} ms`, {
          advice:
            'The relay connects again by itself; look for a firewall or a proxy that drops idle connections.',
        }),
      );
      return;
    }
    if (verdict === 'ask') this.askedAtMs = nowMs;
    this.sendStatus(verdict === 'ask');
  }

  /**
   * Standby status update: the position up to which the server may forget. Exactly the acknowledged one: the library
   * reports one byte more, and the next COMMIT record can begin at that very byte.
   */
  private sendStatus(replyRequested: boolean): void {
    const status = Buffer.alloc(34);
    status[0] = 0x72; // r
    status.writeBigUInt64BE(this.acknowledged, 1);
    status.writeBigUInt64BE(this.acknowledged, 9);
    status.writeBigUInt64BE(this.acknowledged, 17);
    // Shown as reply_time in pg_stat_replication.
    status.writeBigInt64BE(toServerTime(Date.now()), 25);
    status[33] = replyRequested ? 1 : 0;
    this.socket?.sendCopyData(status);
  }
}

function startTimeout(): RelayError {
  return new RelayError(
    'retry',
    'stream-silent',
    `no answer to START_REPLICATION in ${START_DEADLINE_MS} ms`,
    {
      advice: 'The relay connects again by itself; look for a firewall or a proxy that drops connections.',
    },
  );
}

/** The library's extension point: `start` is handed the connected client. */
class TakeOver {
  readonly name = 'pgoutput';
  readonly options = undefined;
  private readonly takeOver: (client: Client) => Promise<void>;

  constructor(takeOver: (client: Client) => Promise<void>) {
    this.takeOver = takeOver;
  }

  start(client: Client): Promise<void> {
    return this.takeOver(client);
  }

  parse(): undefined {
    return undefined;
  }
}
