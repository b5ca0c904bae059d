import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { CaptureScene, type RunningRelay } from '../support/capture.ts';
import { MemoryPublisher } from '../support/memory-publisher.ts';
import { DURABLE } from '../../src/pipeline/publish/publisher.ts';
import { formatLsn, parseLsn } from '../../src/postgres/lsn.ts';
import { until } from '../support/until.ts';

async function orphans(relay: RunningRelay): Promise<string | undefined> {
  const text = await relay.relay.observer.metrics.text();
  return /^outbox_relay_orphans_total (\d+)$/m.exec(text)?.[1];
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

describe('slots, publications and progress rows that change behind the relay', () => {
  let scene: CaptureScene;

  beforeEach(async () => void (scene = await CaptureScene.open()));
  afterEach(async () => await scene.close());

  async function endWalSender(): Promise<void> {
    await scene.endWalSender();
    await until(async () => (await scene.slot())?.activePid === undefined, { what: 'the slot to be free' });
  }

  test('P1 the walsender is terminated: the stream goes on, each event once', async () => {
    const relay = await scene.streaming();
    await scene.insert(5);
    await scene.untilEmpty();
    await endWalSender();
    await scene.insert(5, 6);
    await scene.untilEmpty();
    assert.deepEqual(relay.numbers, upTo(10));
  });

  test('P5 the slot is dropped while streaming: a new hand-over, nothing lost', async () => {
    const relay = await scene.streaming();
    await scene.insert(5);
    await scene.untilEmpty();
    const from = relay.logLines.length;
    await scene.dropSlot();
    await scene.insert(5, 6);
    await relay.logged(/slot-missing/, 60_000, from);
    await scene.untilEmpty();
    assert.deepEqual(relay.numbers, upTo(10));
  });

  test('P5 the slot is made again by hand under its name: noticed, handed over', async () => {
    await scene.handOver();
    await scene.insert(3);
    await scene.sql('select pg_drop_replication_slot($1)', [scene.config.slotName]);
    await scene.insert(3, 4);
    await scene.makeSlot();
    await scene.insert(3, 7);
    const relay = await scene.streaming();
    await scene.untilEmpty();
    await relay.logged(/slot-recreated/);
    assert.deepEqual(relay.numbers, upTo(9));
    assert.equal(await scene.progress('handover'), 'complete');
  });

  test('P5 the progress row is deleted while streaming: handed over, nothing lost', async () => {
    const relay = await scene.streaming();
    await scene.insert(3);
    await scene.untilEmpty();
    await scene.sql('delete from outbox_relay_progress');
    await scene.insert(3, 4);
    await relay.logged(/progress-lost/);
    await scene.untilEmpty();
    assert.deepEqual([...new Set(relay.numbers)], upTo(6));
    await until(async () => (await scene.progress('handover')) === 'complete', {
      what: 'the hand-over to end',
    });
  });

  test('P5 polling is written into the row of a slot by hand, as the advice says: it begins anew, and goes on', async () => {
    await scene.handOver();
    await scene.sql(`update outbox_relay_progress set handover = 'polling'`);
    await scene.insert(5);
    const relay = scene.relay(undefined, { SOURCE: 'polling' });
    await scene.untilEmpty();
    await scene.insert(5, 6);
    await scene.untilEmpty();
    assert.deepEqual(relay.numbers, upTo(10));
    assert.ok(!relay.logLines.some((line) => line.includes('the session ended')), relay.logLines.join(''));
  });

  test('P1 the publication is dropped while streaming: what the stream never brought is found and counted', async () => {
    const relay = await scene.streaming();
    const { publicationName } = scene.config;
    await scene.sql(`drop publication ${publicationName}`);
    await scene.insert(5);
    await scene.sql(
      `create publication ${publicationName} for table outbox with (publish = 'insert', publish_via_partition_root = true)`,
    );
    await scene.insert(5, 6);
    await scene.untilEmpty(40_000);
    assert.deepEqual(
      relay.numbers.toSorted((a, b) => a - b),
      upTo(10),
    );
    assert.equal(await orphans(relay), '5');
  });

  test('P1 a restored dump before the slot: rows with transaction ids of another server are delivered', async () => {
    await scene.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload, xid)
       values ('order', 'k', 't', '{"n": 1}', '3'), ('order', 'k', 't', '{"n": 2}', '99999999999')`,
    );
    const relay = await scene.streaming();
    await scene.insert(1, 3);
    await scene.untilEmpty();
    assert.deepEqual(relay.numbers, [1, 2, 3]);
  });

  test('P1 a restored dump while streaming: each row once', async () => {
    const relay = await scene.streaming();
    await scene.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload, xid)
       values ('order', 'k', 't', '{"n": 1}', '3'), ('order', 'k', 't', '{"n": 2}', '99999999999')`,
    );
    await scene.insert(1, 3);
    await scene.untilEmpty();
    assert.deepEqual(relay.numbers, [1, 2, 3]);
  });

  test('P4 a position that an idle stream heard of is no reason to hand over again', async () => {
    // Status messages three times as often.
    await scene.sql(`alter database ${scene.database.name} set wal_sender_timeout = '3s'`);
    const relay = await scene.streaming();
    await scene.sql('create table noise (x text)');
    await scene.sql(`insert into noise select repeat('x', 1000) from generate_series(1, 3000)`);
    const end = parseLsn((await scene.value('select pg_current_wal_flush_lsn()')) ?? '');
    const sent = `select sent_lsn >= $2 from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid
                   where s.slot_name = $1`;
    const values = [scene.config.slotName, formatLsn(end)];
    await until(async () => (await scene.value(sent, values)) === 't', {
      what: 'the noise to be passed over',
    });
    await endWalSender();
    await until(async () => ((await scene.slot())?.confirmedLsn ?? 0n) >= end, {
      timeoutMs: 20_000,
      what: 'the position to be confirmed by the next connection',
    });
    assert.ok(parseLsn((await scene.progress('durable_lsn')) ?? '') >= end, 'noted before it is confirmed');
    await relay.stop();
    const next = await scene.streaming(relay.publisher);
    await scene.insert(1);
    await scene.untilEmpty();
    assert.ok(!next.logLines.some((line) => line.includes('making a replication slot')));
    assert.deepEqual(next.numbers, [1]);
  });

  test('P4 what polling sent without an answer is delivered before the stream begins: a stop knows of nothing open', async () => {
    const publisher = new MemoryPublisher();
    publisher.answer = () => ({ kind: 'unknown', code: 'test', reason: 'no answer' });
    await scene.insert(1);
    const relay = scene.relay(publisher);
    await relay.logged(/"reason":"hand-over"/);
    publisher.answer = () => DURABLE;
    await relay.logged(/mode: streaming/);
    await scene.untilEmpty();
    assert.deepEqual(await relay.stop(), { unknown: 0, clean: true });
    assert.deepEqual(relay.numbers, [1]);
  });

  test('P4 P8 who is told late that another leads leaves to it what was open: a stop knows of nothing', async () => {
    const relay = await scene.streaming();
    await scene.sql('update outbox_relay_progress set lease_token = lease_token + 1');
    await scene.insert(1);
    await relay.logged(/progress-lost/);
    await scene.sql(
      `update outbox_relay_lease set token = token + 1, holder = 'another machine', renewed_at = clock_timestamp()`,
    );
    await relay.logged(/lease-lost/);
    assert.deepEqual(await relay.stop(), { unknown: 0, clean: true });
  });
});
