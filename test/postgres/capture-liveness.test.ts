import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Client } from 'pg';
import type { ReplicationStream } from '../../src/pipeline/capture/streaming/stream.ts';
import { clientConfig } from '../../src/postgres/connect.ts';
import { formatLsn, parseLsn } from '../../src/postgres/lsn.ts';
import { CaptureScene, printed, readEvents, type RunningRelay } from '../support/capture.ts';
import { Proxy } from '../support/proxy.ts';
import type { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

describe('a stream that has little to say, or nobody to say it to', () => {
  let scene: CaptureScene;
  let relay: RunningRelay | undefined;
  let stream: ReplicationStream | undefined;
  let proxy: Proxy | undefined;
  const processes: RelayProcess[] = [];

  beforeEach(async () => {
    scene = await CaptureScene.open();
  });

  afterEach(async () => {
    await relay?.stop();
    await stream?.close();
    await proxy?.close();
    for (const process of processes.splice(0)) await process.destroy();
    relay = stream = proxy = undefined;
    await scene.close();
  });

  test('P6 an idle outbox on a busy database lets the slot advance, and a kill then loses nothing', async () => {
    const first = scene.relayProcess();
    processes.push(first);
    await first.waitForLine(/mode: streaming/);
    await scene.insert(1);
    await scene.untilEmpty();
    await scene.sql('create table noise (x text)');
    await scene.sql(`insert into noise select repeat('x', 1000) from generate_series(1, 3000)`);
    const end = parseLsn((await scene.value('select pg_current_wal_flush_lsn()')) ?? '');
    await until(async () => ((await scene.slot())?.confirmedLsn ?? 0n) >= end, {
      timeoutMs: 25_000,
      what: `${formatLsn(end)} to be confirmed although the outbox is idle`,
    });
    assert.ok(parseLsn((await scene.progress('durable_lsn')) ?? '') >= end, 'noted before it is confirmed');
    first.kill('SIGKILL');
    await first.exit;
    await scene.insert(3, 2);
    const second = scene.relayProcess();
    processes.push(second);
    await scene.untilEmpty();
    second.kill('SIGTERM');
    await second.exit;
    assert.deepEqual(
      printed([second]).map(({ payload }) => payload),
      ['{"n": 2}', '{"n": 3}', '{"n": 4}'],
    );
  });

  test('P7 a stuck broker for longer than three times wal_sender_timeout: the connection stays, memory too', async () => {
    await scene.sql(`alter database ${scene.database.name} set wal_sender_timeout = '3s'`);
    relay = scene.relay(undefined, { MAX_IN_FLIGHT_EVENTS: '100' });
    const { publisher } = relay;
    await relay.logged(/mode: streaming/);
    publisher.hold();
    const count = 3_000;
    await scene.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload)
       select 'order', 'k' || n % 10, 't', to_jsonb(repeat(md5(n::text), 500)) from generate_series(1, $1::int) n`,
      [count],
    );
    const pid = (await scene.slot())?.activePid;
    const sinceMs = performance.now();
    await until(
      async () => {
        assert.equal((await scene.slot())?.activePid, pid, 'the same connection');
        return performance.now() - sinceMs > 10_000;
      },
      { timeoutMs: 20_000, intervalMs: 200, what: 'ten seconds' },
    );
    assert.equal((await scene.slot())?.activePid, pid);
    assert.equal(publisher.received.length, 0);
    publisher.release();
    await scene.untilEmpty();
    assert.equal(new Set(publisher.received.map(({ id }) => id)).size, count);
    assert.equal(publisher.received.length, count);
  });

  async function throughProxy(): Promise<{ proxy: Proxy; open: () => Promise<ReplicationStream> }> {
    const startLsn = await scene.makeSlot();
    const there = (proxy = await Proxy.start(scene.database.url));
    const connection = { ...scene.config.database.connection(), port: there.port };
    return {
      proxy: there,
      open: async () =>
        (stream = await scene.openStream({
          startLsn,
          clientConfig: clientConfig(connection),
          walSenderTimeoutMs: 600,
          minLivenessDeadlineMs: 600,
        })),
    };
  }

  test('P1 a black hole: the connection is given up at the deadline, and a new one brings everything', async () => {
    const { proxy: between, open } = await throughProxy();
    const reading = await open();
    await scene.insert(1);
    await readEvents(reading, 1);
    between.blackHole();
    await scene.insert(1, 2);
    await assert.rejects(readEvents(reading, 1), { code: 'stream-silent', consequence: 'retry' });
    await reading.close();
    between.heal();
    between.cut();
    const again = await until(open, { what: 'the slot to be free' });
    const events = await readEvents(again, 2);
    assert.deepEqual(
      events.map(({ row }) => row.text('payload')),
      ['{"n": 1}', '{"n": 2}'],
    );
  });

  test('silence of an idle server is not death: it is asked, and answers', async () => {
    const { open } = await throughProxy();
    const reading = await open();
    const sinceMs = performance.now();
    const idle = readEvents(reading, 1);
    await until(() => performance.now() - sinceMs > 2_000, { what: 'three deadlines of silence' });
    await scene.insert(1);
    assert.equal((await idle).length, 1);
  });

  test('a black hole at START_REPLICATION: opening fails at the deadline', async () => {
    const { proxy: between, open } = await throughProxy();
    // What the server says while a session is set up passes; the answer to START_REPLICATION does not.
    const greeting = await greetingBytes();
    between.stallAfter(greeting);
    await assert.rejects(open(), { code: 'stream-silent' });
  });

  /** Bytes that the server sends until a session is ready for its first statement. */
  async function greetingBytes(): Promise<number> {
    const config = clientConfig(scene.config.database.connection());
    const client = new Client({ ...config, replication: 'database' } as typeof config);
    await client.connect();
    const { connection } = client as unknown as { connection: { stream: { bytesRead: number } } };
    const { bytesRead } = connection.stream;
    await client.end();
    return bytesRead;
  }
});
