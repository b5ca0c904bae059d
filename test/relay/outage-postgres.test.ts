import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import { assertDatabaseOutage } from '../fault/assert-outage.ts';
import { postgresOutage } from '../fault/outages.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { emitInMemory, openOutbox, type Outbox } from '../support/outbox.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

/** The log is written with each renewal of the lease, three times in two seconds: that often comes between the commit and the crash. */
const ATTEMPTS = 25;

/** It waits for the relay, or is delivered already because the server has written its log. */
async function isSeen(exhibits: ExhibitReader, outbox: Outbox): Promise<boolean> {
  if ((await exhibits.scrape()).value('outbox_relay_pending_events') === 1) return true;
  return (await outbox.sql('select 1 from outbox')).length === 0;
}

test(
  'P1 P2 P3 P4 P9 PostgreSQL crashes under load, half of the commits asynchronous: nothing lost, nothing published that it no longer has',
  { timeout: 180_000 },
  async (t) => t.diagnostic(assertDatabaseOutage(await postgresOutage(5, 2), 2)),
);

test(
  'P2 a commit that everybody sees and that a crash takes back is never published',
  { timeout: 120_000 },
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
      const durable = [before];
      let gone: string | undefined;
      for (let attempt = 0; gone === undefined && attempt < ATTEMPTS; attempt++) {
        const { id, survived } = await emitInMemory(outbox);
        await until(async () => await isSeen(exhibits, outbox), { what: 'the relay to see the row' });
        await postgres.stop('immediate');
        await postgres.start();
        if (await survived()) durable.push(id);
        else gone = id;
        await outbox.drained();
      }
      assert.ok(gone !== undefined, 'no crash took a commit back');
      const after = await outbox.emit('thing', 'a', 'after');
      await relay.waitForLine(new RegExp(after));
      await outbox.drained();
      relay.kill('SIGTERM');
      assert.deepEqual(await relay.exit, { code: 0, signal: null }, relay.output);
      const ids = relay.stdout.map((line) => (JSON.parse(line) as { id: string }).id);
      assert.deepEqual(ids, [...durable, after], `${gone} is gone`);
    } finally {
      await relay.destroy();
      await outbox.drop();
      await postgres.remove();
    }
  },
);
