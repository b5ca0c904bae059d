// Places an order: the order and its event in one transaction, so that either both exist or neither.
//   node examples/producer.mjs Anna 'Earl Grey' 480
import { Client } from 'pg';

const [customer = 'Anna', item = 'Earl Grey', cents = '480'] = process.argv.slice(2);

const client = new Client({ connectionString: process.env.DATABASE_URL });
await client.connect();
try {
  await client.query(`create table if not exists shop_orders (
    id uuid primary key default gen_random_uuid(), customer text not null, item text not null, cents bigint not null)`);

  await client.query('begin');
  const inserted = await client.query(
    'insert into shop_orders (customer, item, cents) values ($1, $2, $3) returning id',
    [customer, item, cents],
  );
  const order = { id: inserted.rows[0].id, customer, item, cents: Number(cents) };
  // The customer is the ordering key: orders of one customer arrive in the order in which they were committed.
  const emitted = await client.query('select outbox_emit($1, $2, $3, $4) as id', [
    'order',
    customer,
    'OrderPlaced',
    JSON.stringify(order),
  ]);
  await client.query('commit');
  console.log(`order ${order.id}, message ${emitted.rows[0].id}`);
} finally {
  // Without a commit the connection's end rolls back: no order, no event.
  await client.end();
}
