import type { AmqpConnection } from './amqplib.ts';

/** Delivery tags of this channel up to it (`multiple`) or this one alone were taken (`ack`) or refused. */
export type OnConfirm = (tag: number, multiple: boolean, ack: boolean) => void;

/** `basic.ack` and `basic.nack` have one layout: head 7, class 2, method 2, tag 8, bits 1, end 1. */
const CONFIRM_BYTES = 21;
const FRAME_METHOD = 1;
const PAYLOAD_BYTES = 13;
const CLASS_BASIC = 60;
const METHOD_ACK = 80;
const METHOD_NACK = 120;
const FRAME_END = 0xce;

/**
 * Reads confirms where the library would make seven objects of each, and leaves it every other frame. They are read in
 * their order among the others: what came back is known before it is confirmed.
 */
export class ConfirmReader {
  private readonly connection: AmqpConnection;
  private readonly channels = new Map<number, OnConfirm>();

  constructor(connection: AmqpConnection) {
    this.connection = connection;
    const library = connection.recvFrame.bind(connection);
    connection.recvFrame = () => {
      this.takeConfirms();
      return library();
    };
  }

  /** @returns what ends it. Must begin before the first publish on the channel. */
  watch(channel: number, onConfirm: OnConfirm): () => void {
    this.channels.set(channel, onConfirm);
    return () => {
      // The number may belong to another channel by now.
      if (this.channels.get(channel) === onConfirm) this.channels.delete(channel);
    };
  }

  private takeConfirms(): void {
    const { rest } = this.connection;
    let at = 0;
    for (; isConfirm(rest, at); at += CONFIRM_BYTES) {
      const onConfirm = this.channels.get(rest.readUInt16BE(at + 1));
      if (onConfirm === undefined) break;
      const tag = rest.readUInt32BE(at + 11) * 0x1_0000_0000 + rest.readUInt32BE(at + 15);
      onConfirm(tag, (rest[at + 19]! & 1) === 1, rest[at + 10] === METHOD_ACK);
    }
    if (at > 0) this.connection.rest = rest.subarray(at);
  }
}

function isConfirm(bytes: Buffer, at: number): boolean {
  return (
    bytes.length >= at + CONFIRM_BYTES &&
    bytes[at] === FRAME_METHOD &&
    bytes[at + 8] === CLASS_BASIC &&
    (bytes[at + 10] === METHOD_ACK || bytes[at + 10] === METHOD_NACK) &&
    bytes[at + 7] === 0 &&
    bytes[at + 9] === 0 &&
    bytes.readUInt32BE(at + 3) === PAYLOAD_BYTES &&
    bytes[at + 20] === FRAME_END
  );
}
