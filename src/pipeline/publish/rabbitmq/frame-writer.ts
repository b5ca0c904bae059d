import type { Message } from '../../envelope/message.ts';
import type { AmqpConnection } from './amqplib.ts';
import { publishBound, writePublish } from './publish-frames.ts';

/** Bytes that the socket may hold back; beyond it nothing more is taken until it has drained. */
export const SOCKET_BUFFER_BYTES = 1024 * 1024;

/** Messages that are written with one system call, bytes. */
const BUFFER_BYTES = 256 * 1024;

/**
 * Joins the messages of a batch into one write: each by itself doubles the CPU time of a message with TCP_NODELAY, and
 * without it a lone message waits for the acknowledgement of the one before.
 */
export class FrameWriter {
  private readonly connection: AmqpConnection;
  private buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  private end = 0;
  private drained = true;

  constructor(connection: AmqpConnection, onDrain: () => void) {
    this.connection = connection;
    connection.stream.on('drain', () => {
      this.drained = true;
      onDrain();
    });
  }

  /** False after the socket held back more than its limit, until `onDrain`. */
  get writable(): boolean {
    return this.drained;
  }

  /** Takes the message for the next `flush`. Throws when AMQP can't carry it, and then nothing of it is sent. */
  put(channel: number, message: Message): void {
    const { frameMax } = this.connection;
    const bound = publishBound(message, frameMax);
    if (this.end + bound > this.buffer.length) {
      this.flush();
      if (bound > this.buffer.length) this.buffer = Buffer.allocUnsafeSlow(bound);
    }
    this.end = writePublish(this.buffer, this.end, message, { channel, frameMax });
  }

  flush(): void {
    if (this.end === 0) return;
    const { stream } = this.connection;
    this.connection.sentSinceLastCheck = true;
    this.drained = stream.write(this.buffer.subarray(0, this.end)) && this.drained;
    this.end = 0;
    // What the kernel has not taken at once is read from the buffer later. A large one is not kept for nothing.
    if (stream.writableLength > 0 || this.buffer.length > BUFFER_BYTES) {
      this.buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
    }
  }
}
