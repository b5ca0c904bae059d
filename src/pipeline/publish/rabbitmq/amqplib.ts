import type { Duplex } from 'node:stream';
import type { ChannelModel, ConfirmChannel } from 'amqplib';

/**
 * The parts of `amqplib` beneath its public interface that the relay builds on. The library keeps what is rare and
 * intricate: handshake, login, heartbeats, channels, their end, what comes back. What happens for every message is the
 * relay's: the frames of a publish, and the reading of its confirm. The version is pinned exactly, and a test fails when
 * it moves.
 */
export interface AmqpConnection {
  /** The socket. Anything written to it must be whole frames: the library writes its own in between. */
  readonly stream: Duplex;
  /** Longest frame that was agreed on, bytes. */
  readonly frameMax: number;
  /** Bytes received and not yet read as frames; begins with a frame. */
  rest: Buffer;
  /** The next frame, taken from `rest`; false when there is no whole one. Called until it is false. */
  recvFrame(): unknown;
  /** The heartbeat's memory: nothing has to be sent in a period in which something was. */
  sentSinceLastCheck: boolean;
}

export function connectionOf(model: ChannelModel): AmqpConnection {
  return model.connection as unknown as AmqpConnection;
}

/** The number that stands in every frame of the channel. */
export function numberOf(channel: ConfirmChannel): number {
  return (channel as unknown as { readonly ch: number }).ch;
}
