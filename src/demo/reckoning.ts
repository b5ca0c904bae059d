/** One order of the shop, as its own table has it after the end: the database's record of what was committed. */
export interface CommittedOrder {
  /** Message id of its event. */
  readonly id: string;
  /** Customer: the ordering key. */
  readonly key: string;
  /** Counts the customer's orders from 1, without gaps, in the order of their commits. */
  readonly number: number;
}

/** What a consumer saw, in the order in which it saw it. Grows with every distinct event, as the shop's table does. */
export class Arrivals {
  /** Message ids, in the order of their first arrival. */
  readonly ids = new Set<string>();
  private repeated = 0;

  add(id: string): void {
    if (this.ids.has(id)) this.repeated++;
    else this.ids.add(id);
  }

  /** Arrivals beyond the first of an id. */
  get duplicates(): number {
    return this.repeated;
  }
}

export interface Evidence {
  readonly committed: readonly CommittedOrder[];
  /** Message ids of events whose transaction was rolled back. */
  readonly rolledBack: ReadonlySet<string>;
  readonly arrivals: Arrivals;
  /** Message ids that are still in the outbox, or among its dead letters: not delivered, and not lost. */
  readonly waiting: ReadonlySet<string>;
  readonly parked: ReadonlySet<string>;
}

/** Numbers of events. */
export interface Reckoning {
  readonly committed: number;
  readonly rolledBack: number;
  /** Committed and arrived, each once. */
  readonly delivered: number;
  readonly waiting: number;
  readonly parked: number;
  /** Committed, not arrived, and nowhere to be found. */
  readonly lost: number;
  readonly duplicates: number;
  /** Rolled back and arrived all the same. */
  readonly rolledBackArrived: number;
  /** Arrived, and neither committed nor rolled back by this shop. */
  readonly foreign: number;
  /** First arrivals that came after a later order of the same customer. */
  readonly outOfOrder: number;
  /** Every committed event arrived once, in the order of its key, and none of the others. */
  readonly consistent: boolean;
}

export function reckon({ committed, rolledBack, arrivals, waiting, parked }: Evidence): Reckoning {
  const orders = new Map(committed.map((order) => [order.id, order]));
  const missing = committed.filter(({ id }) => !arrivals.ids.has(id)).map(({ id }) => id);
  const surplus = [...arrivals.ids].filter((id) => !orders.has(id));
  const stillWaiting = missing.filter((id) => waiting.has(id)).length;
  const stillParked = missing.filter((id) => !waiting.has(id) && parked.has(id)).length;
  const rolledBackArrived = surplus.filter((id) => rolledBack.has(id)).length;
  const outOfOrder = countOutOfOrder(orders, arrivals);
  const faults = missing.length + surplus.length + arrivals.duplicates + outOfOrder;
  return {
    committed: committed.length,
    rolledBack: rolledBack.size,
    delivered: committed.length - missing.length,
    waiting: stillWaiting,
    parked: stillParked,
    lost: missing.length - stillWaiting - stillParked,
    duplicates: arrivals.duplicates,
    rolledBackArrived,
    foreign: surplus.length - rolledBackArrived,
    outOfOrder,
    consistent: faults === 0,
  };
}

function countOutOfOrder(orders: ReadonlyMap<string, CommittedOrder>, arrivals: Arrivals): number {
  const latest = new Map<string, number>();
  let count = 0;
  for (const id of arrivals.ids) {
    const order = orders.get(id);
    if (order === undefined) continue;
    if (order.number < (latest.get(order.key) ?? 0)) count++;
    else latest.set(order.key, order.number);
  }
  return count;
}
