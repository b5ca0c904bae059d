import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withClient } from '../support/database.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { modeChanges, printedIds, slotsOf, terminated } from '../support/modes.ts';
import { openOutbox } from '../support/outbox.ts';
import { startPgbouncer } from '../support/pgbouncer.ts';
import { RelayProcess } from '../support/relay-process.ts';

/** What sessions of others see that share the server connections. */
const SHARED = `select current_setting('synchronous_commit') || current_setting('enable_seqscan') || current_setting('statement_timeout')
  || current_setting('bytea_output') as settings, count(*) from generate_series(1, 3)`;

async function settings(url: string): Promise<string> {
  return await withClient(
    url,
    async (client) => (await client.query<{ settings: string }>(SHARED)).rows[0]?.settings ?? '',
  );
}

test('P1 P3 P5 P8 behind PgBouncer in transaction mode: it polls, says why, and changes no setting of others', async () => {
  const outbox = await openOutbox();
  const pooler = await startPgbouncer(outbox.url);
  const exhibits = await ExhibitReader.open();
  const relays: RelayProcess[] = [];
  const start = (): RelayProcess => {
    const env = { ...outbox.env, ...exhibits.env, DATABASE_URL: pooler.url, BROKER: 'stdout' };
    const relay = RelayProcess.start({ env });
    relays.push(relay);
    return relay;
  };
  try {
    const expected = await settings(outbox.url);
    const relay = start();
    const ids: string[] = [];
    for (let number = 0; number < 20; number++) {
      ids.push(await outbox.emit('thing', 'a', { number }));
      if (number % 5 === 0) await outbox.drained();
      assert.equal(await settings(pooler.url), expected);
    }
    await outbox.drained();
    assert.deepEqual(modeChanges(relay), [{ mode: 'polling', reason: 'pooler' }]);
    const status = await exhibits.status();
    assert.deepEqual([status['mode'], status['reason']], ['polling', 'pooler']);
    assert.equal((await exhibits.text('/readyz')).status, 200);
    assert.match(relay.output, /DATABASE_URL name PostgreSQL itself/);
    await terminated(relay);
    // The lease was given back: the next one need not wait.
    const next = start();
    ids.push(await outbox.emit('thing', 'a', 'last'));
    await outbox.drained();
    await terminated(next);
    assert.deepEqual([...printedIds(relay), ...printedIds(next)], ids);
    assert.deepEqual(await slotsOf(outbox.url), []);
  } finally {
    for (const relay of relays) await relay.destroy();
    await pooler.remove();
    await outbox.drop();
  }
});
