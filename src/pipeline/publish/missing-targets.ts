import type { Message } from '../envelope/message.ts';
import type { Outcome } from './publisher.ts';

/** RabbitMQ lets this user send to the exchange, but not with this routing key. */
export const ROUTE_REFUSED = 'route-refused';
const UNROUTABLE = 'unroutable';
/** Refusals that concern a route, not the whole destination. */
const OF_ROUTE: ReadonlySet<string> = new Set([UNROUTABLE, ROUTE_REFUSED]);

/** Missing routes are remembered by routing key; so many at most, the oldest are forgotten and get a new grace. */
const MAX_MISSING_REMEMBERED = 10_000;

/** Since when destinations and routes are missing. Pure: time is a parameter. */
export class MissingTargets {
  private readonly known = new Map<string, { sinceMs: number; lastMs: number }>();
  private readonly forgetAfterMs: number;

  /** A refusal later than `forgetAfterMs` after the last one begins anew. */
  constructor(forgetAfterMs: number) {
    this.forgetAfterMs = forgetAfterMs;
  }

  /** Notes a refusal. Returns for how long the target has been missing. */
  forMs(message: Message, code: string, nowMs: number): number {
    const target = targetOf(message, code);
    const known = this.known.get(target);
    if (known && nowMs - known.lastMs <= this.forgetAfterMs) {
      known.lastMs = nowMs;
      return nowMs - known.sinceMs;
    }
    if (!known && this.known.size >= MAX_MISSING_REMEMBERED) {
      this.known.delete(this.known.keys().next().value as string);
    }
    this.known.set(target, { sinceMs: nowMs, lastMs: nowMs });
    return 0;
  }

  /** Something arrived there. */
  found(message: Message): void {
    if (this.known.size === 0) return;
    this.known.delete(message.destination);
    this.known.delete(targetOf(message, UNROUTABLE));
  }
}

/** A missing route concerns one routing key: other messages of its exchange arrive and prove nothing for it. */
export function targetOf(message: Message, code: string): string {
  return OF_ROUTE.has(code) ? `${message.destination}\0${message.routingKey}` : message.destination;
}

export function isMissing(outcome: Outcome | undefined): outcome is Extract<Outcome, { kind: 'rejected' }> {
  return outcome?.kind === 'rejected' && outcome.missingDestination === true;
}
