import type { OutboxEvent, Row, Transaction } from '../../../src/pipeline/capture/event.ts';
import type { Message } from '../../../src/pipeline/envelope/message.ts';

/** A row of given texts; a column that is not named does not exist. */
export function rowOf(
  values: Readonly<Record<string, string | null>>,
  typeOids: Readonly<Record<string, number>> = {},
): Row {
  const text = (column: string): string | null | undefined =>
    Object.hasOwn(values, column) ? values[column] : undefined;
  return {
    columns: Object.keys(values),
    text,
    bytes: (column) => {
      const value = text(column);
      return typeof value === 'string' ? Buffer.from(value) : value;
    },
    typeOid: (column) => (Object.hasOwn(values, column) ? (typeOids[column] ?? 25) : undefined),
  };
}

export function transactionOf(part: Partial<Transaction> = {}): Transaction {
  return { xid: 1, committedAtMs: 0, endLsn: undefined, outstanding: 0, ...part };
}

/** Counts itself as outstanding, as the assembly does. */
export function eventOf(seq: number, transaction: Transaction, part: Partial<OutboxEvent> = {}): OutboxEvent {
  transaction.outstanding++;
  return { row: rowOf({}), seq, xid: transaction.xid ?? 0, transaction, sizeBytes: 100, ...part };
}

export function messageOf(seq: number, part: Partial<Message> = {}): Message {
  const event = part.event ?? eventOf(seq, transactionOf({ endLsn: BigInt(seq) }));
  return {
    event,
    destination: 'topic',
    key: 'key',
    routingKey: part.key ?? 'key',
    id: `id-${seq}`,
    type: 'type',
    contentType: 'application/json',
    timestampMs: 0,
    headers: undefined,
    body: null,
    sizeBytes: event.sizeBytes,
    ...part,
  };
}
