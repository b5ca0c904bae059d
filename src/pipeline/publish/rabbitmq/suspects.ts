import type { Message } from '../../envelope/message.ts';
import { ROUTE_REFUSED, targetOf } from '../missing-targets.ts';
import type { Outcome } from '../publisher.ts';
import type { Blame } from './errors.ts';

/** Successes in a row on the probe channel after which a refused exchange is trusted again. */
const SUCCESSES_TO_TRUST = 100;

const MAX_ROUTES = 10_000;
/** They wait as for a missing destination, and close a channel each time. */
const REFUSALS: ReadonlySet<string> = new Set(['access-refused', ROUTE_REFUSED]);

/**
 * Which messages may close a channel and so fail their neighbours. RabbitMQ does not say which message it closed a
 * channel for; those that were outstanding are sent again one at a time on a channel of their own, until each has
 * shown what it does. Pure; lives longer than a connection.
 */
export class Suspects {
  /** Learned from a refusal on this connection; bytes. */
  maxBodyBytes = Number.POSITIVE_INFINITY;
  /** Weak: one that is parked meanwhile never comes back. */
  private readonly messages = new WeakSet<Message>();
  /** Whether `messages` was ever used: the question is asked for every message. */
  private any = false;
  private readonly exchanges = new Map<string, number>();
  /** That this user may not use: the next event of one would close the channel of its neighbours again. */
  private readonly routes = new Set<string>();
  /** Outcomes to come until messages may be outstanding together again. */
  private quarantined = 0;
  private readonly everyone: boolean;

  /** `everyone`: each message is one, whatever is known of it. */
  constructor(everyone = false) {
    this.everyone = everyone;
  }

  /** True while nothing else may be on the connection. */
  get quarantine(): boolean {
    return this.quarantined > 0;
  }

  /** The limit may have been raised meanwhile, or this is another node: what was learned may refuse good messages. */
  connected(): void {
    this.maxBodyBytes = Number.POSITIVE_INFINITY;
  }

  /** True when the message must be sent alone. */
  has(message: Message): boolean {
    if (this.everyone || this.quarantined > 0) return true;
    if (this.exchanges.size > 0 && this.exchanges.has(message.destination)) return true;
    if (this.routes.size > 0 && this.routes.has(targetOf(message, ROUTE_REFUSED))) return true;
    return this.any && this.messages.has(message);
  }

  /** A channel was closed while `outstanding` were on it. */
  channelClosed(blame: Blame, outstanding: readonly Message[]): void {
    switch (blame.kind) {
      case 'nobody':
      case 'missing-exchange':
        return;
      case 'refused-exchange':
        this.exchanges.set(blame.exchange, 0);
        return;
      case 'size':
        this.maxBodyBytes = blame.maxBytes;
        return;
      case 'some-message':
        for (const message of outstanding) this.suspect(message);
    }
  }

  /** The whole connection was closed: a channel of its own would not protect the others. */
  connectionClosed(blame: Blame, outstanding: readonly Message[]): void {
    if (blame.kind === 'some-message') this.quarantined = Math.max(this.quarantined, outstanding.length);
    else this.channelClosed(blame, outstanding);
  }

  /** A message that was sent alone has its outcome. */
  settled(message: Message, outcome: Outcome): void {
    if (outcome.kind === 'unknown') return;
    if (this.quarantined > 0) this.quarantined--;
    const culprit = outcome.kind === 'rejected';
    // A culprit that is tried again must not hurt its neighbours the next time. A missing exchange hurts nobody: it is
    // checked before anything is sent there.
    if (culprit && (outcome.missingDestination !== true || REFUSALS.has(outcome.code))) {
      this.suspect(message);
    } else this.messages.delete(message);
    this.noteRoute(message, culprit && outcome.code === ROUTE_REFUSED);
    const successes = this.exchanges.get(message.destination);
    if (successes === undefined) return;
    if (culprit) this.exchanges.set(message.destination, 0);
    else if (successes + 1 >= SUCCESSES_TO_TRUST) this.exchanges.delete(message.destination);
    else this.exchanges.set(message.destination, successes + 1);
  }

  private noteRoute(message: Message, refused: boolean): void {
    const route = targetOf(message, ROUTE_REFUSED);
    if (!refused) this.routes.delete(route);
    else if (this.routes.size < MAX_ROUTES) this.routes.add(route);
  }

  private suspect(message: Message): void {
    this.any = true;
    this.messages.add(message);
  }
}
