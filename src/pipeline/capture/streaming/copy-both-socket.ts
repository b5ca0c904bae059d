import type { Duplex } from 'node:stream';
import { RelayError } from '../../../errors/errors.ts';
import { Framer, type OnFrame } from './framing.ts';

/**
 * The socket of a replication connection, taken over from `pg` once the session is set up.
 *
 * The library's transport hands out every change as an event and re-uses the buffers behind them; the server sends one
 * small packet a change, so whoever reads each at once makes it spend its core on system calls. Here everything that
 * has arrived is read at once, with `read()`: with `pause()` and `resume()` each packet stays a chunk of its own.
 */
export class CopyBothSocket {
  private readonly stream: Duplex;
  private readonly framer: Framer;
  private failure: Error | undefined;
  private wake: (() => void) | undefined;

  /** `maxFrameBytes`: of a row that is larger, large values are not read. */
  constructor(stream: Duplex, maxFrameBytes: number) {
    this.stream = stream;
    this.framer = new Framer(maxFrameBytes);
    stream.pause();
    stream.removeAllListeners('data');
    stream.on('readable', this.wakeReader);
    stream.on('end', this.onEnd);
    stream.on('close', this.onEnd);
    stream.on('error', this.onError);
  }

  /** Sends a simple query (protocol message `Q`). */
  sendQuery(sql: string): void {
    const text = Buffer.from(`${sql}\0`);
    const header = Buffer.alloc(5, 'Q');
    header.writeUInt32BE(text.length + 4, 1);
    this.stream.write(Buffer.concat([header, text]));
  }

  sendCopyData(payload: Buffer): void {
    if (this.failure) return;
    const header = Buffer.alloc(5, 'd');
    header.writeUInt32BE(payload.length + 4, 1);
    this.stream.write(Buffer.concat([header, payload]));
  }

  /**
   * Waits until something has arrived and frames all of it, or the signal aborts. Resolves with how many bytes that
   * were; throws when the connection is lost.
   */
  async read(onFrame: OnFrame, signal?: AbortSignal): Promise<number> {
    for (;;) {
      if (signal?.aborted === true) return 0;
      const chunk = this.stream.read() as Buffer | null;
      if (chunk !== null) {
        this.framer.push(chunk, onFrame);
        return chunk.length;
      }
      if (this.failure) throw this.failure;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.wake = resolve;
      await promise;
    }
  }

  /** Ends a pending `read` with this error. Nothing is sent any more. */
  fail(error: Error): void {
    this.failure ??= error;
    this.wakeReader();
  }

  /** Lets a pending `read` look at its signal. Sending goes on: a drain still has positions to acknowledge. */
  readonly wakeReader = (): void => {
    this.wake?.();
    this.wake = undefined;
  };

  /** Not `end()`: on a half-open connection that would wait for an answer that never comes. */
  destroy(): void {
    this.stream.destroy();
  }

  private readonly onEnd = (): void => {
    this.fail(
      new RelayError('retry', 'stream-closed', 'the server closed the replication connection', {
        advice: 'The relay connects again by itself; the reason stands in the log of PostgreSQL.',
      }),
    );
  };

  private readonly onError = (error: Error): void => {
    this.fail(error);
  };
}
