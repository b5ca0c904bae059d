import type { Client } from 'pg';
import type { DatabaseConnection } from '../config/config.ts';
import { connect, disconnect } from '../postgres/connect.ts';
import type { CommittedOrder } from './reckoning.ts';
import { pause } from '../lifecycle/wait.ts';

const CONNECTIONS = 4;
/** One transaction in this many is rolled back after its event was written, one holds two orders. */
const ROLLED_BACK_EVERY = 8;
const TWO_ORDERS_EVERY = 10;

const CUSTOMERS = ['Anna', 'Bela', 'Chiara', 'Dev', 'Emeka', 'Freya', 'Goran', 'Hana', 'Ines', 'Jonas'];
const GOODS: readonly (readonly [name: string, cents: number])[] = [
  ['Earl Grey', 480],
  ['Sencha', 720],
  ['Darjeeling', 1150],
  ['Oolong', 990],
  ['Rooibos', 390],
  ['teapot', 3900],
  ['strainer', 650],
];

const TABLES = `
  create table customers (name text primary key, orders integer not null default 0);
  create table orders (
    customer text not null references customers,
    number integer not null,
    item text not null,
    pieces integer not null,
    cents integer not null,
    event_id uuid not null,
    primary key (customer, number)
  )`;

/** Locks the customer until the end of the transaction: orders of one customer are numbered in commit order. */
const NUMBER = `update customers set orders = orders + 1 where name = $1 returning orders as number`;

/** The order and its event: one call of the function that `migrate` made … */
const ORDER_BY_FUNCTION = `insert into orders (customer, number, item, pieces, cents, event_id)
  values ($1, $2, $3, $4, $5, outbox_emit('order', $1, 'OrderPlaced', $6)) returning event_id`;

/** … or a plain insert, as an object mapper would do it. */
const ORDER_BY_INSERT = `with event as (
    insert into outbox (aggregatetype, aggregateid, type, payload) values ('order', $1, 'OrderPlaced', $6) returning id
  )
  insert into orders (customer, number, item, pieces, cents, event_id) select $1, $2, $3, $4, $5, id from event
  returning event_id`;

export interface ShopOptions {
  readonly connection: DatabaseConnection;
  /** Committed events a second. */
  readonly rate: number;
  /** Committed events after which it closes. */
  readonly events: number;
  /** Closes it: transactions that have begun are finished. */
  readonly signal: AbortSignal;
  readonly random: () => number;
}

/** Writes orders and their events over several connections, and sometimes changes its mind. */
export class Shop {
  /** Message ids of the events that were rolled back: the only place that knows of them. */
  readonly rolledBack = new Set<string>();
  private readonly options: ShopOptions;
  /** Events committed by transactions whose commit was answered. */
  private count = 0;
  private scheduled = 0;

  constructor(options: ShopOptions) {
    this.options = options;
  }

  get committed(): number {
    return this.count;
  }

  static async prepare(client: Client): Promise<void> {
    await client.query(TABLES);
    await client.query('insert into customers (name) select unnest($1::text[])', [CUSTOMERS]);
  }

  /** Until all events are committed or the signal aborts. Rejects when a transaction fails. */
  async run(): Promise<void> {
    const startedMs = performance.now();
    const failure = new AbortController();
    const signal = AbortSignal.any([this.options.signal, failure.signal]);
    const sellers = Array.from({ length: CONNECTIONS }, async () => {
      try {
        await this.sell(startedMs, signal);
      } catch (error) {
        failure.abort();
        throw error;
      }
    });
    const ends = await Promise.allSettled(sellers);
    const failed = ends.find((end) => end.status === 'rejected');
    if (failed) throw failed.reason;
  }

  private async sell(startedMs: number, signal: AbortSignal): Promise<void> {
    const { connection, events, rate, random } = this.options;
    // Not by the driver alone, which reads PGSSLMODE, PGOPTIONS and the like: they are about another database.
    const client = await connect(connection, {
      applicationName: 'shop',
      signal: new AbortController().signal,
    });
    try {
      while (this.scheduled < events) {
        const dueMs = startedMs + (this.scheduled / rate) * 1000;
        const two = this.scheduled + 1 < events && random() * TWO_ORDERS_EVERY < 1;
        const orders = two ? 2 : 1;
        this.scheduled += orders;
        await sleepUntil(dueMs, signal);
        if (signal.aborted) return;
        if (random() * ROLLED_BACK_EVERY < 1) await this.transaction(client, 1, 'rollback');
        await this.transaction(client, orders, 'commit');
      }
    } finally {
      await disconnect(client);
    }
  }

  private async transaction(client: Client, orders: number, end: 'commit' | 'rollback'): Promise<void> {
    const customer = pick(CUSTOMERS, this.options.random);
    await client.query('begin');
    const ids: string[] = [];
    for (let i = 0; i < orders; i++) ids.push(await this.order(client, customer));
    await client.query(end);
    if (end === 'commit') this.count += orders;
    else for (const id of ids) this.rolledBack.add(id);
  }

  private async order(client: Client, customer: string): Promise<string> {
    const { random } = this.options;
    const numbered = await client.query<{ number: string }>(NUMBER, [customer]);
    const number = Number(numbered.rows[0]?.number ?? 0);
    const [item, price] = pick(GOODS, random);
    const pieces = 1 + Math.floor(random() * 3);
    const cents = pieces * price;
    const payload = JSON.stringify({ customer, number, item, pieces, cents });
    const statement = random() < 0.5 ? ORDER_BY_FUNCTION : ORDER_BY_INSERT;
    const values = [customer, number, item, pieces, cents, payload];
    const inserted = await client.query<{ event_id: string }>(statement, values);
    return inserted.rows[0]?.event_id ?? '';
  }
}

/** Ids as the database has them now. */
export interface ShopRecord {
  readonly committed: readonly CommittedOrder[];
  readonly waiting: ReadonlySet<string>;
  readonly parked: ReadonlySet<string>;
}

export async function readRecord(client: Client): Promise<ShopRecord> {
  const orders = await client.query<Record<'id' | 'key' | 'number', string>>(
    'select event_id as id, customer as key, number from orders',
  );
  const waiting = await client.query<{ id: string }>('select id from outbox');
  const parked = await client.query<{ id: string }>('select event_id as id from outbox_relay_dead_letters');
  return {
    committed: orders.rows.map(({ id, key, number }) => ({ id, key, number: Number(number) })),
    waiting: new Set(waiting.rows.map(({ id }) => id)),
    parked: new Set(parked.rows.map(({ id }) => id)),
  };
}

function pick<T>(list: readonly T[], random: () => number): T {
  return list[Math.floor(random() * list.length)] as T;
}

async function sleepUntil(dueMs: number, signal: AbortSignal): Promise<void> {
  const restMs = dueMs - performance.now();
  if (restMs > 0) await pause(restMs, signal);
}
