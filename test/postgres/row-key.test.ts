import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { loadConfig } from '../../src/config/load.ts';
import { TablePoll } from '../../src/pipeline/capture/polling/table-poll.ts';
import { rowKey } from '../../src/postgres/row-key.ts';
import { freshDatabase, withClient, type FreshDatabase } from '../support/database.ts';
import { afterEachQuery } from '../support/table-poller.ts';
import { until } from '../support/until.ts';
import { DEFAULT_OUTBOX } from '../support/default-outbox.ts';

const KEY = rowKey({ ...DEFAULT_OUTBOX, numbered: false });

interface Found {
  readonly seq: string;
  readonly xid: string;
  readonly n: number;
}

/** Of various sizes: not every page has room for each. */
function insert(n: number): string {
  return `insert into outbox values (${n}, repeat('x', ${400 + (n % 7) * 300}))`;
}

describe('rows without numbers are told by their place', () => {
  let database: FreshDatabase;

  beforeEach(async () => {
    database = await freshDatabase();
    await sql('create table outbox (n int)');
  });

  afterEach(async () => await database.drop());

  async function sql(text: string, values: unknown[] = []): Promise<Found[]> {
    return await withClient(database.url, async (client) => (await client.query<Found>(text, values)).rows);
  }

  const identities = async (): Promise<Found[]> =>
    await sql(`select ${KEY.seq} as seq, ${KEY.xid}::text as xid, n from outbox o order by ${KEY.order}`);

  const removeAll = async (found: readonly Found[]): Promise<number[]> => {
    const removed: number[] = [];
    for (const { seq, xid } of found) {
      const rows = await sql(
        `delete from outbox o where ${KEY.among('array[$1::bigint]')} and ${KEY.xid} = $2::text::xid8 returning n`,
        [seq, xid],
      );
      removed.push(...rows.map(({ n }) => n));
    }
    return removed;
  };

  test('P1 each is found again by it, and the numbers are whole below 2^53', async () => {
    await sql('insert into outbox select n from generate_series(1, 5) n');
    const found = await identities();
    assert.ok(
      found.every(({ seq, xid }) => Number.isSafeInteger(Number(seq)) && Number.isSafeInteger(Number(xid))),
    );
    assert.deepEqual(
      found.map(({ n }) => n),
      [1, 2, 3, 4, 5],
    );
    assert.deepEqual(await removeAll(found.slice(1, 3)), [2, 3]);
  });

  test('P3 a row that finds room on an earlier page comes after those of its transaction before it', async () => {
    await sql('alter table outbox add column fill text');
    // Where there is room is the server's choice: not every transaction is spread so.
    await until(
      async () => {
        await sql(Array.from({ length: 100 }, (_, n) => insert(n)).join('; '));
        await sql('delete from outbox where n % 10 < 5');
        await sql('vacuum outbox');
        await sql('delete from outbox where n >= 1000');
        const numbers = Array.from({ length: 60 }, (_, i) => 1_000 + i);
        await sql(`begin; ${numbers.map(insert).join('; ')}; commit`);
        const later = (await identities()).filter(({ n }) => n >= 1_000);
        assert.deepEqual(
          later.map(({ n }) => n),
          numbers,
        );
        return later.some(({ seq }, i) => i > 0 && Number(seq) < Number(later[i - 1]?.seq));
      },
      { what: 'a transaction whose rows do not lie in its order', intervalMs: 1 },
    );
  });

  test('P1 not another row that came to stand there: after VACUUM FULL, of the same transaction', async () => {
    await sql('insert into outbox select n from generate_series(1, 5) n');
    const before = await identities();
    await sql('delete from outbox where n <= 2');
    // While an older snapshot is held on the server, the dead rows are kept in their places.
    await until(
      async () => {
        await sql('vacuum full outbox');
        return (await identities())[0]?.seq === before[0]?.seq;
      },
      { what: 'the third to stand where the first stood' },
    );
    assert.deepEqual(await removeAll(before), []);
  });

  test('P1 nor one of a later transaction, once the place is used again', async () => {
    await sql('insert into outbox values (1)');
    const before = await identities();
    await sql('delete from outbox');
    await until(
      async () => {
        await sql('delete from outbox');
        await sql('vacuum (truncate off) outbox');
        await sql('insert into outbox values (2)');
        return (await identities())[0]?.seq === before[0]?.seq;
      },
      { what: 'the place to be used again' },
    );
    assert.deepEqual(await removeAll(before), []);
  });

  test('P3 a table that is rewritten between a look and the fetch of its rows is looked at again', async () => {
    await sql('drop table outbox');
    await sql(
      `create table outbox (id uuid default gen_random_uuid(), aggregatetype text, aggregateid text, type text, payload text)`,
    );
    for (let n = 1; n <= 40; n++) await sql(`insert into outbox values (default, 'a', 'k', 'T', '${n}')`);
    await sql(`delete from outbox where payload::int <= 10`);
    const config = {
      ...loadConfig({ DATABASE_URL: database.url, BROKER: 'stdout' }),
      outbox: { ...DEFAULT_OUTBOX, numbered: false },
    };
    const delivered: number[] = [];
    const stopping = new AbortController();
    await withClient(database.url, async (client) => {
      let rewrites = 0;
      const afterLook = afterEachQuery(client, async (text) => {
        if (text.includes('took_ms') && rewrites++ === 0) await sql('vacuum full outbox');
      });
      const poll = new TablePoll({
        config,
        client: afterLook,
        flush: async () => void (await sql('checkpoint')),
      });
      for await (const { events } of poll.batches(stopping.signal)) {
        delivered.push(...events.map(({ row }) => Number(row.text('payload'))));
        if (delivered.length >= 30) stopping.abort();
      }
      assert.ok(rewrites > 1, 'looked at again');
    });
    assert.deepEqual(
      delivered,
      Array.from({ length: 30 }, (_, i) => 11 + i),
    );
  });
});
