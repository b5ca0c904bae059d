import type { Message } from '../envelope/message.ts';
import type { Outcome } from './publisher.ts';

/** A message on its way through a lane. */
export interface Delivery {
  readonly message: Message;
  readonly lane: Lane;
  /** When it was handed to the publisher. */
  sentAtMs: number;
  /** Refusals that were about this event; an outage of the broker is none. */
  attempts: number;
  outcome: Outcome | undefined;
  /** Keeps nothing of its neighbours in memory. */
  apart: boolean;
}

/** Messages whose order must be kept. The first `outstanding` of the queue are with the broker. */
export interface Lane {
  readonly name: string;
  readonly destination: string;
  readonly layout: number | undefined;
  /** Nobody knows yet which lanes its messages belong to. */
  readonly unknown: boolean;
  queue: Delivery[];
  outstanding: number;
  unanswered: number;
  /** How many may go at once; halved while a group is refused, to find the culprit. */
  groupLimit: number;
  failures: number;
  retryAtMs: number;
  /** Its front was refused because the destination or the route is missing. */
  missing: boolean;
}

/** A broker that takes longer for an answer may do so for hours. */
const LATE_MS = 200;

/** Messages of other lanes pass it. */
export function isHeldUp({ failures, outstanding, queue }: Lane, nowMs: number): boolean {
  return failures > 0 || (outstanding > 0 && nowMs - (queue[0] as Delivery).sentAtMs > LATE_MS);
}

/** Not while it is with the broker: the publisher may be reading its body. */
export function setApart(delivery: Delivery): void {
  if (delivery.apart) return;
  delivery.apart = true;
  const { message } = delivery;
  const { row } = message.event;
  if (row.own) Object.assign(message, { body: row.own(message.body) });
}
