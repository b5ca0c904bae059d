import type { ChannelModel } from 'amqplib';

interface Corkable {
  cork(): void;
  uncork(): void;
}

/** Bytes that one system call may carry; beyond it the library waits for 'drain'. */
export const SOCKET_BUFFER_BYTES = 1024 * 1024;

/**
 * Joins the frames of a batch into one system call and few TCP segments. The library writes each message by itself,
 * which with TCP_NODELAY doubles the CPU time of a message; without TCP_NODELAY a lone message waits for the
 * acknowledgement of the one before.
 *
 * The library moves frames to the socket in a `setImmediate` that it schedules after the write, so the cork is pulled
 * one turn of the event loop later.
 */
export class WriteCoalescing {
  private readonly stream: Corkable | undefined;
  private corked = false;
  private again = false;

  constructor(model: ChannelModel) {
    this.stream = socketOf(model);
  }

  /** Call before writing. */
  begin(): void {
    if (this.stream === undefined) return;
    if (this.corked) {
      this.again = true;
      return;
    }
    this.corked = true;
    this.stream.cork();
    setImmediate(this.afterScheduling);
  }

  private readonly afterScheduling = (): void => {
    setImmediate(this.afterMoving);
  };

  private readonly afterMoving = (): void => {
    this.stream?.uncork();
    this.corked = false;
    if (!this.again) return;
    this.again = false;
    this.begin();
  };
}

/** Not part of the library's types: a version without it is slower, not wrong. */
function socketOf(model: ChannelModel): Corkable | undefined {
  const { stream } = model.connection as { stream?: Partial<Corkable> };
  return typeof stream?.cork === 'function' && typeof stream.uncork === 'function'
    ? (stream as Corkable)
    : undefined;
}
