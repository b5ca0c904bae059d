import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import { assertDatabaseOutage } from '../fault/assert-outage.ts';
import { postgresOutage } from '../fault/outages.ts';
import { withClient } from '../support/database.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { openOutbox } from '../support/outbox.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

test(
  'P1 P2 P3 P4 P9 PostgreSQL crashes under load, half of the commits asynchronous: nothing lost, nothing published that it no longer has',
  { timeout: 180_000 },
  async (t) => t.diagnostic(assertDatabaseOutage(await postgresOutage(5, 2), 2)),
);

test(
  'P2 a commit that everybody sees and that a crash takes back is never published',
  { timeout: 60_000 },
  async () => {
    // Nothing but a synchronous commit writes the log to the disk within the test.
    const postgres = await startPostgres({ settings: { wal_writer_delay: '10s' } });
    const outbox = await openOutbox(postgres.url);
    const exhibits = await ExhibitReader.open();
    const relay = RelayProcess.start({ env: { ...outbox.env, ...exhibits.env, BROKER: 'stdout' } });
    try {
      await relay.waitForLine(/mode: streaming/);
      const before = await outbox.emit('thing', 'a', 'before');
      await outbox.drained();
      const gone = await withClient(outbox.url, async (client) => {
        await client.query('set synchronous_commit = off');
        const { rows } = await client.query<{ id: string }>(
          `select outbox_emit('thing', 'a', 'Happened', '"gone"')::text as id`,
        );
        const position = await client.query<{ unwritten: string }>(
          'select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn()) as unwritten',
        );
        assert.ok(Number(position.rows[0]?.unwritten) > 0, 'the commit is only in memory');
        return rows[0]?.id ?? '';
      });
      const pending = async (): Promise<boolean> =>
        (await exhibits.scrape()).value('outbox_relay_pending_events') === 1;
      await until(pending, { what: 'the relay to see the row' });
      await postgres.stop('immediate');
      await postgres.start();
      assert.deepEqual(await outbox.sql('select 1 from outbox'), [], 'the crash took the commit back');
      const after = await outbox.emit('thing', 'a', 'after');
      await relay.waitForLine(new RegExp(after));
      await outbox.drained();
      relay.kill('SIGTERM');
      assert.deepEqual(await relay.exit, { code: 0, signal: null }, relay.output);
      const ids = relay.stdout.map((line) => (JSON.parse(line) as { id: string }).id);
      assert.deepEqual(ids, [before, after]);
      assert.ok(!ids.includes(gone));
    } finally {
      await relay.destroy();
      await outbox.drop();
      await postgres.remove();
    }
  },
);
