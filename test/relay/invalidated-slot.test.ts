import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Client } from 'pg';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import { modeChanges, printedIds, slotsOf, streamedTimes, terminated } from '../support/modes.ts';
import { openOutbox, type Outbox } from '../support/outbox.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

const NOISE = `insert into noise select repeat(md5(n::text), 30) from generate_series(1, 20000) n`;

function startRelay(outbox: Outbox): RelayProcess {
  return RelayProcess.start({ env: { ...outbox.env, BROKER: 'stdout' } });
}

async function emit(outbox: Outbox, numbers: readonly number[]): Promise<string[]> {
  const ids: string[] = [];
  for (const n of numbers) ids.push(await outbox.emit('thing', 'a', n));
  return ids;
}

async function walStatus(outbox: Outbox): Promise<string | null | undefined> {
  const sql = 'select wal_status from pg_replication_slots where slot_name = $1';
  return (await outbox.sql(sql, [outbox.name]))[0]?.['wal_status'];
}

describe('a slot that the server invalidates', { concurrency: true }, () => {
  for (const version of [14, 18] as const) {
    test(
      `P1 P3 P4 P5 max_slot_wal_keep_size, PostgreSQL ${version}: told with its remedy, the table is polled, then it streams, each event once`,
      { timeout: 120_000 },
      async () => {
        const server = await startPostgres({
          version,
          settings: { max_slot_wal_keep_size: '16MB', max_wal_size: '48MB', min_wal_size: '32MB' },
        });
        const outbox = await openOutbox(server.url);
        const relay = startRelay(outbox);
        const writer = new Client({ connectionString: outbox.url });
        try {
          await outbox.sql('create table noise (text text)');
          await streamedTimes(relay, 1);
          const ids = await emit(outbox, [1, 2]);
          await outbox.drained();
          // The slot can't move beyond its beginning, and none can be made before its end.
          await writer.connect();
          await writer.query(`begin; insert into noise values ('held')`);
          await until(
            async () => {
              await outbox.sql(NOISE);
              await outbox.sql('checkpoint');
              return modeChanges(relay).some(({ reason }) => reason === 'slot-lost');
            },
            { what: 'the slot to be invalidated and given up', timeoutMs: 60_000 },
          );
          ids.push(...(await emit(outbox, [3, 4])));
          await outbox.drained();
          assert.equal(modeChanges(relay).at(-1)?.mode, 'polling');
          assert.match(
            relay.output,
            /removed the log that the replication slot needed.*max_slot_wal_keep_size/,
          );
          await writer.query('commit');
          await streamedTimes(relay, 2);
          ids.push(...(await emit(outbox, [5])));
          await outbox.drained();
          assert.notEqual(await walStatus(outbox), 'lost');
          await terminated(relay);
          assert.deepEqual(printedIds(relay), ids);
        } finally {
          await relay.destroy();
          await writer.end();
          await outbox.drop();
          await server.remove();
        }
      },
    );
  }

  test(
    'P1 P3 P4 P5 idle_replication_slot_timeout, PostgreSQL 18, while the relay is stopped: told with its remedy, each event once',
    { timeout: 120_000 },
    async () => {
      const server = await startPostgres({ settings: { idle_replication_slot_timeout: '1s' } });
      const outbox = await openOutbox(server.url);
      let relay = startRelay(outbox);
      try {
        await streamedTimes(relay, 1);
        const ids = await emit(outbox, [1]);
        await outbox.drained();
        await terminated(relay);
        assert.deepEqual(printedIds(relay), ids);
        const later = await emit(outbox, [2, 3]);
        await until(
          async () => {
            await outbox.sql('checkpoint');
            return (await walStatus(outbox)) === 'lost';
          },
          { what: 'the slot to be invalidated', intervalMs: 200 },
        );
        relay = startRelay(outbox);
        await streamedTimes(relay, 1);
        later.push(...(await emit(outbox, [4])));
        await outbox.drained();
        assert.equal(modeChanges(relay)[0]?.reason, 'slot-idle-timeout', relay.output);
        assert.match(relay.output, /nobody had read it.*idle_replication_slot_timeout/);
        assert.deepEqual(await slotsOf(outbox.url), [outbox.name]);
        await terminated(relay);
        assert.deepEqual(printedIds(relay), later);
      } finally {
        await relay.destroy();
        await outbox.drop();
        await server.remove();
      }
    },
  );
});
