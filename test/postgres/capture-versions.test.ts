import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import { formatLsn } from '../../src/postgres/lsn.ts';
import { commitAdjacently } from '../support/adjacent.ts';
import { CaptureScene, printed } from '../support/capture.ts';
import type { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

const WITHHOLDING = fileURLToPath(new URL('../support/withholding-relay.ts', import.meta.url));

describe('every supported version of PostgreSQL', () => {
  let server: PostgresServer | undefined;
  let scene: CaptureScene | undefined;
  const relays: RelayProcess[] = [];

  afterEach(async () => {
    for (const relay of relays.splice(0)) await relay.destroy();
    await scene?.close();
    await server?.remove();
    scene = server = undefined;
  });

  for (const version of [14, 15, 16, 17, 18] as const) {
    test(`P1 PostgreSQL ${version}: a kill between adjacent commits loses nothing`, async () => {
      server = await startPostgres({ version, settings: { fsync: 'off' } });
      const here = (scene = await CaptureScene.open({ serverUrl: server.url }));
      await here.handOver();
      const { names, boundaryLsn } = await commitAdjacently(here, here.config.slotName);

      const killed = here.relayProcess({ script: WITHHOLDING, env: { WITHHOLD: names[1] } });
      relays.push(killed);
      await until(async () => (await here.slot())?.confirmedLsn === boundaryLsn, {
        timeoutMs: 20_000,
        what: 'exactly the end of the first commit to be confirmed',
      }).catch(async (error: unknown) => {
        const slot = await here.slot();
        const state = `boundary ${formatLsn(boundaryLsn)}, confirmed ${formatLsn(slot?.confirmedLsn ?? 0n)}, noted ${await here.progress('durable_lsn')}`;
        throw new Error(`${String(error)}; ${state}\n${killed.output}`, { cause: error });
      });
      await killed.destroy();
      assert.equal(await here.progress('durable_lsn'), formatLsn(boundaryLsn));

      const last = here.relayProcess();
      relays.push(last);
      await here.untilEmpty();
      last.kill('SIGTERM');
      assert.deepEqual(await last.exit, { code: 0, signal: null });
      const before = new Set(printed([killed]).map(({ key }) => key));
      assert.ok(before.has(names[0]) && !before.has(names[1]));
      assert.deepEqual(
        printed([last]).map(({ key }) => key),
        [names[1]],
      );
    });
  }

  for (const version of [17, 18] as const) {
    test(`P5 PostgreSQL ${version}: a publication that was missing for a while costs no event`, async () => {
      server = await startPostgres({ version, settings: { fsync: 'off' } });
      const here = (scene = await CaptureScene.open({ serverUrl: server.url }));
      await here.handOver();
      const { publicationName } = here.config;
      await here.sql(`drop publication ${publicationName}`);
      await here.insert(5);
      await here.sql(
        `create publication ${publicationName} for table outbox with (publish = 'insert', publish_via_partition_root = true)`,
      );
      await here.insert(5, 6);
      const relay = here.relayProcess();
      relays.push(relay);
      await here.untilEmpty(40_000);
      relay.kill('SIGTERM');
      await relay.exit;
      const numbers = printed([relay]).map(({ payload }) => (JSON.parse(payload ?? '') as { n: number }).n);
      assert.deepEqual(
        numbers.toSorted((a, b) => a - b),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
      );
    });
  }

  test('P1 PostgreSQL 17: where rows are deleted at once, a publication that was missing is told as possible loss', async () => {
    server = await startPostgres({ version: 17, settings: { fsync: 'off' } });
    const here = (scene = await CaptureScene.open({
      serverUrl: server.url,
      env: { DELETED_AT_ONCE: 'yes' },
    }));
    await here.handOver();
    const { publicationName, slotName } = here.config;
    await here.sql(`drop publication ${publicationName}`);
    await here.insert(1);
    await here.sql(`create publication ${publicationName} for table outbox with (publish = 'insert')`);
    const halted = here.relay();
    const line = await halted.logged(/halted: this needs a person/);
    assert.match(line, /possible-loss/);
    assert.match(line, /publication .* does not exist/);
    assert.ok(await here.slot(), 'it stays');
    await halted.stop();
    await here.sql(`update outbox_relay_progress set handover = 'polling' where slot_name = $1`, [slotName]);
    const next = await here.streaming(halted.publisher);
    await here.insert(1, 2);
    await until(() => next.publisher.received.length === 2, { what: 'both events' });
    assert.deepEqual(next.publisher.payloads, ['{"n": 1}', '{"n": 2}']);
  });

  test('P1 PostgreSQL 18: there, what may have passed it by is told, and the stream goes on', async () => {
    server = await startPostgres({ version: 18, settings: { fsync: 'off' } });
    const here = (scene = await CaptureScene.open({
      serverUrl: server.url,
      env: { DELETED_AT_ONCE: 'yes' },
    }));
    await here.handOver();
    const from = await here.progress('durable_lsn');
    await here.sql(`drop publication ${here.config.publicationName}`);
    await here.sql(
      `begin; select outbox_emit('order', 'k', 'Placed', '{"n": 1}'); delete from outbox; commit`,
    );
    const relay = here.relay();
    const line = await relay.logged(/passed the publication by/);
    assert.match(line, /possible-loss/);
    assert.match(line, new RegExp(`between ${from} and [\\dA-F/]+ may be lost`));
    await relay.logged(/mode: streaming/);
    await here.insert(1, 2);
    await until(() => relay.publisher.received.length === 1, { what: 'the event that came after' });
    assert.deepEqual(relay.publisher.payloads, ['{"n": 2}']);
    assert.equal(relay.logLines.filter((text) => /passed the publication by/.test(text)).length, 1);
  });
});
