// What makes a consumer idempotent: the message id is remembered in the transaction that does the work. A message that
// comes again finds its id and changes nothing; after a crash in between, neither the work nor the id is there.
import { Client } from 'pg';

export async function openShipping() {
  const client = new Client({ connectionString: process.env.DATABASE_URL });
  await client.connect();
  await client.query(`
    create table if not exists shipping_messages (id uuid primary key, at timestamptz not null default now());
    create table if not exists shipments (order_id uuid primary key, customer text not null, item text not null)`);

  return {
    /** Ships an order, once for each message id. Rejects when that failed: then the message has to come again. */
    async ship(messageId, order) {
      await client.query('begin');
      try {
        const { rowCount } = await client.query(
          'insert into shipping_messages (id) values ($1) on conflict do nothing',
          [messageId],
        );
        if (rowCount === 1) {
          await client.query('insert into shipments (order_id, customer, item) values ($1, $2, $3)', [
            order.id,
            order.customer,
            order.item,
          ]);
        }
        await client.query('commit');
        console.log(rowCount === 1 ? `shipped ${messageId}` : `seen before ${messageId}`);
      } catch (error) {
        await client.query('rollback');
        throw error;
      }
    },
    close: () => client.end(),
  };
}
