import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { freshDatabase, withClient, type FreshDatabase } from '../support/database.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { modeChanges, printedIds, terminated } from '../support/modes.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

const TABLE = `create table outbox (
  id uuid not null primary key, aggregatetype varchar(255) not null, aggregateid varchar(255) not null,
  type varchar(255) not null, payload jsonb)`;
const INSERT = `insert into outbox (id, aggregatetype, aggregateid, type, payload)
  values (gen_random_uuid(), 'order', $1, 'Placed', jsonb_build_object('n', $2::int)) returning id::text`;
const KEYS = 5;

/** The table as Debezium documents it, and what was committed to it, for each key in its order. */
class DebeziumTable {
  readonly committed = new Map<string, string[]>();
  readonly env: Readonly<Record<string, string>>;
  readonly database: FreshDatabase;
  private turns = 0;

  private constructor(database: FreshDatabase) {
    this.database = database;
    this.env = { DATABASE_URL: database.url, SLOT_NAME: database.name, BROKER: 'stdout' };
  }

  static async open(): Promise<DebeziumTable> {
    const table = new DebeziumTable(await freshDatabase());
    await table.sql(TABLE);
    return table;
  }

  async sql(text: string, values: readonly unknown[] = []): Promise<Record<string, string>[]> {
    return await withClient(
      this.database.url,
      async (client) => (await client.query<Record<string, string>>(text, [...values])).rows,
    );
  }

  /** Transactions of one to three events, of one key after the other; every fourth is rolled back. */
  async write(transactions: number): Promise<void> {
    await withClient(this.database.url, async (client) => {
      for (let i = 0; i < transactions; i++) {
        const turn = this.turns++;
        const key = `key-${turn % KEYS}`;
        await client.query('begin');
        const written: string[] = [];
        for (let n = 0; n <= turn % 3; n++) {
          const { rows } = await client.query<{ id: string }>(INSERT, [key, n]);
          written.push(...rows.map(({ id }) => id));
        }
        const kept = turn % 4 !== 3;
        await client.query(kept ? 'commit' : 'rollback');
        const ids = this.committed.get(key) ?? [];
        if (kept) this.committed.set(key, ids.concat(written));
      }
    });
  }

  async migrate(...args: string[]): Promise<RelayProcess> {
    const process = RelayProcess.start({ args: ['migrate', ...args], env: this.env });
    assert.deepEqual(await process.exit, { code: 0, signal: null }, process.output);
    return process;
  }

  start(env: Readonly<Record<string, string>> = {}): RelayProcess {
    return RelayProcess.start({ env: { ...this.env, HTTP_HOST: '127.0.0.1', HTTP_PORT: '0', ...env } });
  }

  async drained(): Promise<void> {
    const empty = async (): Promise<boolean> => (await this.sql('select from outbox limit 1')).length === 0;
    await until(empty, { what: 'every row to be delivered', timeoutMs: 30_000 });
  }

  /** First deliveries of these relays, in order for each key, of everything that was committed and nothing else. */
  assertDelivered(...relays: readonly RelayProcess[]): void {
    const first = [...new Set(relays.flatMap(printedIds))];
    const expected = new Set([...this.committed.values()].flat());
    assert.deepEqual(new Set(first), expected);
    for (const [key, ids] of this.committed) {
      const own = new Set(ids);
      assert.deepEqual(
        first.filter((id) => own.has(id)),
        ids,
        key,
      );
    }
  }
}

describe("Debezium's default table, which has neither seq nor xid", () => {
  test(
    'P1 P2 P3 P5 it is polled as it is and says in which order; once it is adopted, it is streamed',
    { timeout: 120_000 },
    async () => {
      const table = await DebeziumTable.open();
      const exhibits = await ExhibitReader.open();
      await table.write(200);
      const migrated = await table.migrate();
      assert.deepEqual(migrated.stdout, ['applied 0002_relay']);
      assert.match(migrated.stderr.join('\n'), /can only be polled[^]*migrate --adopt/);
      const relay = table.start(exhibits.env);
      try {
        const order = await relay.waitForLine(/in the order in which their transactions first wrote/);
        assert.match(order, /migrate --adopt/);
        await table.write(200);
        await table.drained();
        assert.deepEqual(modeChanges(relay), [{ mode: 'polling', reason: 'column-missing' }]);
        await until(async () => (await exhibits.lag()) === 0, { what: 'a lag of 0' });
        await table.migrate('--adopt');
        await relay.waitForLine(/mode: streaming/, 60_000);
        await table.write(50);
        await table.drained();
        await terminated(relay);
        const all = printedIds(relay);
        assert.equal(all.length, new Set(all).size, 'no duplicate');
        table.assertDelivered(relay);
      } finally {
        await relay.destroy();
        await table.database.drop();
      }
    },
  );

  test(
    'P1 P2 P3 P4 killed, and rewritten by VACUUM FULL, while events are on their way: nothing lost or removed that was not delivered',
    { timeout: 120_000 },
    async () => {
      const table = await DebeziumTable.open();
      await table.migrate();
      const relays: RelayProcess[] = [];
      try {
        for (let round = 0; round < 3; round++) {
          const relay = table.start({ SOURCE: 'polling' });
          relays.push(relay);
          const writing = table.write(300);
          await until(() => printedIds(relay).length > 50, { what: 'events to flow' });
          await table.sql('vacuum full outbox');
          await writing;
          relay.kill('SIGKILL');
          await relay.exit;
        }
        const last = table.start({ SOURCE: 'polling' });
        relays.push(last);
        await last.waitForLine(/mode: polling/);
        await table.write(10);
        await table.drained();
        await terminated(last);
        table.assertDelivered(...relays);
      } finally {
        for (const relay of relays) await relay.destroy();
        await table.database.drop();
      }
    },
  );

  test('P10 what it can not be is refused with the remedy', { timeout: 60_000 }, async () => {
    const table = await DebeziumTable.open();
    await table.migrate();
    try {
      for (const env of [{ SOURCE: 'streaming' }, { CLEANUP: 'mark' }, { CLEANUP: 'none' }]) {
        const relay = table.start(env);
        assert.deepEqual(await relay.exit, { code: 78, signal: null }, relay.output);
        assert.match(relay.stderr.at(-1) ?? '', /lacks .*migrate --adopt/);
      }
    } finally {
      await table.database.drop();
    }
  });

  test('P7 P10 an event that is too large is parked, and the others flow', { timeout: 60_000 }, async () => {
    const table = await DebeziumTable.open();
    await table.migrate();
    const relay = table.start({ MAX_EVENT_BYTES: '1048576' });
    try {
      const large = `insert into outbox values (gen_random_uuid(), 'order', 'k', 'Placed', to_jsonb(repeat('x', 2000000))) returning id::text`;
      const [parked] = await table.sql(large);
      await table.write(10);
      await table.drained();
      const letters = await table.sql('select event_id, code from outbox_relay_dead_letters');
      assert.deepEqual(letters, [{ event_id: parked?.['id'], code: 'event-too-large' }]);
      await terminated(relay);
      table.assertDelivered(relay);
    } finally {
      await relay.destroy();
      await table.database.drop();
    }
  });
});
