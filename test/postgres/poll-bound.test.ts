import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Client } from 'pg';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import { CaptureScene } from '../support/capture.ts';
import { withClient } from '../support/database.ts';
import { TablePoller } from '../support/table-poller.ts';
import { until } from '../support/until.ts';

/** Numbers that make the bound worth moving. */
const BULK = 1_500;

const EMIT = `select outbox_emit('thing', 'a', 'Happened', '1')`;
const INSERT = `insert into outbox (seq, aggregatetype, aggregateid, type, payload)
                select s, 'thing', 'b' || s, 'Happened', '1' from`;

/** How a transaction can hold a number; each leaves it open. Resolves with a number that it has yet to insert. */
const HOLDING: Readonly<Record<string, (client: Client) => Promise<number | undefined>>> = {
  'a row that is not committed': async (client) => {
    await client.query('begin');
    await client.query(EMIT);
    return undefined;
  },
  'a row under a savepoint': async (client) => {
    await client.query('begin; savepoint s');
    await client.query(EMIT);
    await client.query('release s');
    return undefined;
  },
  'a number drawn under a savepoint that was rolled back': async (client) => {
    await client.query('begin; savepoint s');
    const seq = await draw(client);
    await client.query(EMIT);
    await client.query('rollback to s');
    return seq;
  },
  'a number drawn in an earlier statement, before the transaction has an id': async (client) => {
    // Each 33rd number, and the first after a checkpoint, is logged and takes an id: another try then.
    return await until(
      async () => {
        await client.query('rollback; begin');
        const seq = await draw(client);
        const { rows } = await client.query<{ xid: string | null }>(
          'select pg_current_xact_id_if_assigned() as xid',
        );
        return rows[0]?.xid === null && seq;
      },
      { what: 'a number drawn without an id' },
    );
  },
};

async function draw(client: Client): Promise<number> {
  const { rows } = await client.query<{ seq: string }>(`select nextval('outbox_seq') as seq`);
  return Number(rows[0]?.seq);
}

async function writeBulk(client: Client): Promise<void> {
  await client.query(`${INSERT} (select nextval('outbox_seq') as s from generate_series(1, $1::int)) n`, [
    BULK,
  ]);
}

/** Looks at an idle table are seldom and all from the beginning: rows keep it busy. */
async function writeUntil(client: Client, done: () => boolean): Promise<void> {
  const write = async (): Promise<boolean> => {
    await client.query(`${INSERT} (select nextval('outbox_seq') as s) n`);
    return done();
  };
  await until(write, { what: 'the bound to move', timeoutMs: 30_000, intervalMs: 5 });
}

/** Until every transaction that could still insert was asked for some times, and looks were made with a bound. */
async function rounds(poller: TablePoller, client: Client): Promise<void> {
  const asked = (): number => poller.statements.filter(({ text }) => text.includes('pg_locks')).length;
  const [askedBefore, looks] = [asked(), poller.bounds.length];
  await writeUntil(client, () => asked() >= askedBefore + 4 && poller.bounds.length >= looks + 10);
}

async function moved(poller: TablePoller, client: Client, above: number): Promise<void> {
  await writeUntil(client, () => (poller.bounds.at(-1) ?? 0) > above);
}

describe('the lower bound of a look', () => {
  let server: PostgresServer;
  before(async () => {
    server = await startPostgres({ settings: { max_prepared_transactions: '4' } });
  });
  after(async () => await server.remove());

  async function polled(
    run: (parts: { poller: TablePoller; writer: Client; other: Client }) => Promise<void>,
  ): Promise<void> {
    const scene = await CaptureScene.open({ serverUrl: server.url, env: { SOURCE: 'polling' } });
    try {
      await withClient(scene.database.url, async (writer) => {
        await withClient(scene.database.url, async (other) => {
          const poller = new TablePoller(scene.config, scene.client);
          try {
            await run({ poller, writer, other });
          } finally {
            await poller.stop();
          }
        });
      });
    } finally {
      await scene.close();
    }
  }

  for (const [what, hold] of Object.entries(HOLDING)) {
    test(`P1 P3 stays below ${what}`, { timeout: 60_000 }, async () => {
      await polled(async ({ poller, writer, other }) => {
        await writeBulk(other);
        await moved(poller, other, 0);
        const late = await hold(writer);
        const held = late ?? (await draw(other));
        await writeBulk(other);
        await rounds(poller, other);
        const highest = Math.max(...poller.bounds);
        assert.ok(highest <= held, `${highest} is above ${held}`);
        if (late !== undefined) await writer.query(`${INSERT} (values ($1::bigint)) as n(s)`, [late]);
        const { rows } = await writer.query<{ seq: string }>('select min(seq) as seq from outbox');
        await writer.query('commit');
        const seq = Number(rows[0]?.seq);
        await poller.wait(() => poller.delivered.includes(seq), 'the late row to be read');
        await writeBulk(other);
        await moved(poller, other, held + BULK);
      });
    });
  }

  test('P1 P3 stays below a row of a prepared transaction', { timeout: 60_000 }, async () => {
    await polled(async ({ poller, writer, other }) => {
      await writeBulk(other);
      await moved(poller, other, 0);
      await writer.query('begin');
      await writer.query(EMIT);
      const held = await draw(other);
      await writeBulk(other);
      await rounds(poller, other);
      // A round waits for it already.
      await writer.query(`prepare transaction 'p'`);
      await draw(writer);
      await rounds(poller, other);
      const highest = Math.max(...poller.bounds);
      assert.ok(highest <= held, `${highest} is above ${held}`);
      await writer.query(`commit prepared 'p'`);
      await moved(poller, other, held + BULK);
      assert.ok(poller.delivered.includes(held - 1));
    });
  });

  test(
    'P1 rows with numbers that were given out long ago, and of a sequence that was set back, are found',
    { timeout: 60_000 },
    async () => {
      await polled(async ({ poller, other }) => {
        await writeBulk(other);
        await moved(poller, other, BULK);
        await other.query(`${INSERT} (values (7), (8)) as n(s)`);
        const times = (number: number): number => poller.delivered.filter((seq) => seq === number).length;
        await writeUntil(other, () => times(7) === 2 && times(8) === 2);
        await other.query('alter sequence outbox_seq restart');
        await other.query(EMIT);
        await poller.wait(() => times(1) === 2, 'the first number of the sequence again');
      });
    },
  );

  for (const [what, change] of Object.entries({
    'sessions keep numbers for later': 'alter sequence outbox_seq cache 10',
    'it runs in a circle': 'alter sequence outbox_seq cycle',
    'numbers are not its own': `alter table outbox alter column seq set default nextval('outbox_seq') * 2`,
  })) {
    test(`P3 no bound where the sequence tells nothing: ${what}`, { timeout: 60_000 }, async () => {
      const scene = await CaptureScene.open({ serverUrl: server.url, env: { SOURCE: 'polling' } });
      try {
        await scene.sql(change);
        await withClient(scene.database.url, writeBulk);
        const poller = new TablePoller(scene.config, scene.client);
        await poller.wait(() => poller.delivered.length === BULK && poller.looks.length > 5, 'some looks');
        await poller.stop();
        assert.deepEqual(poller.bounds, []);
      } finally {
        await scene.close();
      }
    });
  }
});
