import type { Message } from '../../envelope/message.ts';
import type { Outcome } from '../publisher.ts';

/** Header that carries the ordering key when the routing key is something else. A row's own header of this name loses. */
export const KEY_HEADER = 'key';

/**
 * AMQP has no NULL body: a NULL payload is an empty body with this header set to `true`, so that consumers can tell it
 * from an empty text.
 */
export const NULL_PAYLOAD_HEADER = 'null-payload';

/** The message's headers as they are sent: the row's own, and what AMQP has no other place for. */
export function headersOf(message: Message): Readonly<Record<string, string | true>> | undefined {
  const keyElsewhere = message.key !== null && message.routingKey !== message.key;
  if (!keyElsewhere && message.body !== null) return message.headers;
  const headers: Record<string, string | true> = { ...message.headers };
  if (keyElsewhere) headers[KEY_HEADER] = message.key;
  if (message.body === null) headers[NULL_PAYLOAD_HEADER] = true;
  return headers;
}

/**
 * What RabbitMQ would answer by closing the whole channel, refused before it is sent: CC and BCC are routing
 * instructions there and must be arrays, but a row's headers are strings.
 */
export function refusalBeforeSending(message: Message, maxBodyBytes: number): Outcome | undefined {
  if (message.body !== null && message.body.length > maxBodyBytes) {
    return refused(
      'message-too-large',
      `the body has ${message.body.length} bytes, RabbitMQ takes ${maxBodyBytes}`,
    );
  }
  const { headers } = message;
  if (headers === undefined) return undefined;
  if (Object.hasOwn(headers, 'CC') || Object.hasOwn(headers, 'BCC')) {
    return refused('reserved-header', 'the headers CC and BCC are reserved by RabbitMQ');
  }
  return undefined;
}

export function refused(code: string, reason: string): Outcome {
  return { kind: 'rejected', code, reason, permanent: true, scope: 'event' };
}
