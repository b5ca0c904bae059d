import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PgoutputPlugin } from 'pg-logical-replication';
import type { ReplicationStream } from '../../src/pipeline/capture/streaming/stream.ts';
import { decodePgoutput } from '../../src/pipeline/capture/streaming/decoder.ts';
import { formatLsn } from '../../src/postgres/lsn.ts';
import { commitAdjacently } from '../support/adjacent.ts';
import { CaptureScene, readEvents } from '../support/capture.ts';
import { LibraryReader, type LibraryOptions } from '../support/library-reader.ts';
import { until } from '../support/until.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

const readTypes = async (source: ReplicationStream, count: number): Promise<(string | null | undefined)[]> =>
  (await readEvents(source, count)).map(({ row }) => row.text('type'));

const ignore = (): void => undefined;

const digest = (bytes: Buffer): string => createHash('md5').update(bytes).digest('hex');

/**
 * Each trap of the library, sprung by using it as its documentation does, and not sprung by the relay's stream, which
 * reads the same transactions from a slot of its own.
 */
describe("traps of the library's transport", () => {
  let scene: CaptureScene;
  let naive: LibraryReader | undefined;
  const streams: ReplicationStream[] = [];

  beforeEach(async () => {
    scene = await CaptureScene.open();
    naive = undefined;
  });

  afterEach(async () => {
    await naive?.close();
    for (const opened of streams.splice(0)) await opened.close();
    await scene.close();
  });

  function library(options?: LibraryOptions): LibraryReader {
    naive = new LibraryReader(scene, options);
    return naive;
  }

  async function twoSlots(): Promise<{ theirs: string; ours: string; startLsn: bigint }> {
    const theirs = `${scene.config.slotName}_library`;
    await scene.makeSlot(theirs);
    return { theirs, ours: scene.config.slotName, startLsn: await scene.makeSlot() };
  }

  async function stream(startLsn: bigint, walSenderTimeoutMs = 60_000): Promise<ReplicationStream> {
    const opened = await scene.openStream({ startLsn, walSenderTimeoutMs });
    streams.push(opened);
    return opened;
  }

  async function confirmed(slotName: string): Promise<string> {
    const sql = 'select confirmed_flush_lsn from pg_replication_slots where slot_name = $1';
    return (await scene.value(sql, [slotName])) ?? '';
  }

  async function free(slotName: string): Promise<void> {
    const sql = 'select active_pid from pg_replication_slots where slot_name = $1';
    await until(async () => (await scene.value(sql, [slotName])) === null, {
      what: `${slotName} to be free`,
    });
  }

  async function emit(...names: string[]): Promise<void> {
    for (const name of names) await scene.sql(`select outbox_emit('order', 'k', $1, '{}')`, [name]);
  }

  /** Every status message of the stream sets it, whatever position it reports. */
  async function statusSeen(slotName: string): Promise<string | null> {
    return await scene.value(
      `select r.reply_time from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid
        where s.slot_name = $1`,
      [slotName],
    );
  }

  test('P1 trap 1: the library confirms one byte too much, and the adjacent commit is lost', async () => {
    const { theirs, ours, startLsn } = await twoSlots();
    const { names: pair, boundaryLsn } = await commitAdjacently(scene, ours);
    const boundary = formatLsn(boundaryLsn);

    const first = library();
    first.subscribe(theirs);
    await until(() => first.commitEnds.includes(boundaryLsn), { what: 'the first commit' });
    await first.service.acknowledge(boundary);
    await until(async () => (await confirmed(theirs)) === formatLsn(boundaryLsn + 1n), {
      what: 'one byte too much to be confirmed',
    });
    await first.close();
    await free(theirs);
    await emit('later');
    const second = library();
    second.subscribe(theirs);
    await until(() => second.names.includes('later'), { what: 'the event that follows' });
    assert.ok(!second.names.includes(pair[1]), 'the trap: the second transaction never comes again');

    const before = await stream(startLsn);
    await readEvents(before, (events) => events.some(({ row }) => row.text('type') === pair[1]));
    before.acknowledge(boundaryLsn);
    await until(async () => (await confirmed(ours)) === boundary, {
      what: 'exactly the end to be confirmed',
    });
    await before.close();
    await free(ours);
    assert.deepEqual(await readTypes(await stream(0n), 2), [pair[1], 'later']);
  });

  test('P1 trap 2: auto:false with its timer confirms what was only received', async () => {
    const { theirs, ours, startLsn } = await twoSlots();
    const before = await confirmed(theirs);
    const first = library({ acknowledge: { auto: false, timeoutSeconds: 1 } });
    first.subscribe(theirs);
    const reading = await stream(startLsn, 300);
    await emit('one', 'two');
    assert.deepEqual(await readTypes(reading, 2), ['one', 'two']);
    const status = await statusSeen(ours);
    await until(async () => (await confirmed(theirs)) !== before, { what: 'the trap to confirm' });
    await first.close();
    await free(theirs);
    await emit('three');
    const second = library();
    second.subscribe(theirs);
    await until(() => second.names.includes('three'), { what: 'the event that follows' });
    assert.ok(!second.names.includes('one'), 'the trap: unacknowledged events are gone');

    await until(async () => (await statusSeen(ours)) !== status, { what: 'a status message of our own' });
    await reading.close();
    await free(ours);
    assert.deepEqual(await readTypes(await stream(0n), 3), ['one', 'two', 'three']);
  });

  test('P1 trap 3: a second subscription of the same instance skips what was not acknowledged', async () => {
    const { theirs, startLsn } = await twoSlots();
    const first = library();
    first.subscribe(theirs);
    await emit('one', 'two');
    await until(() => first.names.length === 2, { what: 'two events' });
    await first.service.stop();
    await free(theirs);
    await emit('three');
    first.subscribe(theirs);
    await until(() => first.names.includes('three'), { what: 'the event that follows' });
    assert.deepEqual(first.names, ['one', 'two', 'three'], 'the trap: one and two do not come again');

    const reading = await stream(startLsn);
    assert.deepEqual(await readTypes(reading, 3), ['one', 'two', 'three']);
    await reading.close();
    await free(scene.config.slotName);
    assert.deepEqual(await readTypes(await stream(startLsn), 3), ['one', 'two', 'three']);
  });

  test("P1 trap 4: flowControl goes on after a handler's error, and confirms the failed event", async () => {
    const { theirs, ours, startLsn } = await twoSlots();
    const first = library({
      flowControl: { enabled: true },
      acknowledge: { auto: true, timeoutSeconds: 0 },
    });
    first.onInsert = (insert) => {
      if (insert.new['type'] === 'two') throw new Error('the broker is away');
    };
    first.subscribe(theirs);
    await emit('one', 'two', 'three');
    await until(() => first.commitEnds.length === 3, { what: 'three commits' });
    assert.deepEqual(first.names, ['one', 'three'], 'the trap: two failed and three was handled');
    const last = formatLsn(first.commitEnds[2] as bigint);
    const sql = 'select confirmed_flush_lsn >= $2 from pg_replication_slots where slot_name = $1';
    await until(async () => (await scene.value(sql, [theirs, last])) === 't', {
      what: 'the trap to confirm everything',
    });

    const unmoved = await confirmed(ours);
    const reading = await stream(startLsn);
    const handled: unknown[] = [];
    await assert.rejects(async () => {
      for await (const { events } of reading.batches(AbortSignal.timeout(10_000)))
        for (const { row } of events) {
          if (row.text('type') === 'two') throw new Error('the broker is away');
          handled.push(row.text('type'));
        }
    }, /the broker is away/);
    assert.deepEqual(handled, ['one']);
    await reading.close();
    await free(ours);
    assert.equal(await confirmed(ours), unmoved);
    assert.deepEqual(await readTypes(await stream(startLsn), 3), ['one', 'two', 'three']);
  });

  test('P10 trap 5: an exception while parsing ends the process', async () => {
    const { theirs, startLsn } = await twoSlots();
    await emit('one');
    const script = `
      import { LogicalReplicationService, PgoutputPlugin } from 'pg-logical-replication';
      const [url, slot, publication] = process.argv.slice(1);
      const plugin = new PgoutputPlugin({ protoVersion: 1, publicationNames: [publication] });
      plugin.parse = () => { throw new Error('cannot be parsed'); };
      const service = new LogicalReplicationService({ connectionString: url });
      service.on('error', () => console.log('reported'));
      await service.subscribe(plugin, slot).catch(() => console.log('rejected'));`;
    const args = [scene.database.url, theirs, scene.config.publicationName];
    const child = spawn(process.execPath, ['--input-type=module', '--eval', script, ...args], {
      cwd: PROJECT,
    });
    let output = '';
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number];
    assert.equal(code, 1);
    assert.match(output, /Error: cannot be parsed/);
    assert.doesNotMatch(output, /reported|rejected/, 'the trap: nobody could have handled it');

    const { outbox } = scene.config;
    const wrong = {
      schema: outbox.schema,
      table: outbox.table,
      seqColumn: 'type',
      xidColumn: 'xid',
      requiredColumns: [],
      addressColumns: [],
      oids: new Set<number>(),
      others: new Set<number>(),
      alone: true,
      asked: new Map<string, string>(),
    };
    // While opening, when the row comes in one packet with the server's answer; else at the first read.
    const read = async (): Promise<void> => {
      const reading = await scene.openStream({ startLsn, outbox: wrong });
      streams.push(reading);
      await readEvents(reading, 1);
    };
    await assert.rejects(read(), { code: 'identity-invalid', consequence: 'stop' });
  });

  test('P2 trap 6: built-in decoding loses digits, microseconds and the sign', async () => {
    const { theirs, startLsn } = await twoSlots();
    await scene.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload, created_at)
       values ('order', 'k', 'one', '{"n": 9007199254740993, "n2": 1e400}', '2024-05-06 07:08:09.123456+00')`,
    );
    const stored = await scene.sql<'payload' | 'created_at'>('select payload, created_at from outbox');
    const first = library();
    first.subscribe(theirs);
    const insert = await until(() => first.inserts[0], { what: 'the event' });
    assert.notEqual(JSON.stringify(insert.new['payload']), JSON.stringify(stored[0]?.payload));
    assert.equal((insert.new['payload'] as { n: number }).n, 9007199254740992, 'the trap: a digit is lost');
    const created = insert.new['created_at'] as Date;
    assert.equal(created.toISOString(), '2024-05-06T07:08:09.123Z', 'the trap: microseconds are lost');

    const [event] = await readEvents(await stream(startLsn), 1);
    assert.equal(event?.row.text('payload'), stored[0]?.payload);
    assert.equal(event?.row.text('created_at'), stored[0]?.created_at);
    assert.match(event?.row.text('payload') ?? '', /9007199254740993/);
    assert.match(event?.row.text('created_at') ?? '', /\.123456\+00$/);
  });

  test('P2 trap 6: built-in decoding reads a transaction id above 2^31 as negative', () => {
    const begin = Buffer.alloc(21, 0);
    begin[0] = 0x42;
    begin.writeUInt32BE(4_000_000_000, 17);
    const options = { protoVersion: 1, publicationNames: [] } as const;
    const parsed = new PgoutputPlugin({ ...options, publicationNames: [] }).parse(begin);
    assert.ok('xid' in parsed && parsed.xid < 0, 'the trap: the sign');

    let xid = 0;
    decodePgoutput(
      { begin: (read) => (xid = read), type: ignore, relation: ignore, insert: ignore, commit: ignore },
      begin,
      0,
      begin.length,
    );
    assert.equal(xid, 4_000_000_000);
  });

  test('P2 trap 7: buffers that were handed out are written over later', async () => {
    const count = 20_000;
    const { theirs, startLsn } = await twoSlots();
    await scene.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload)
       select 'order', n::text, md5(n::text), jsonb_build_object('n', n, 'fill', repeat(md5(n::text), 10))
         from generate_series(1, $1::int) n`,
      [count],
    );
    const kept: { chunk: Buffer; digest: string }[] = [];
    const first = library();
    const plugin = new PgoutputPlugin(first.pluginOptions);
    plugin.parse = (chunk) => {
      if (chunk[0] === 0x49) kept.push({ chunk, digest: digest(chunk) });
      return { tag: 'origin', originLsn: null, originName: '' };
    };
    first.subscribe(theirs, plugin);
    await until(() => kept.length === count, { what: 'all rows' });
    const overwritten = kept.filter((one) => digest(one.chunk) !== one.digest).length;
    assert.ok(overwritten > 0, 'the trap: bytes changed after they had been handed out');

    const events = await readEvents(await stream(startLsn), count);
    const altered = events.filter(({ row }, index) => {
      const md5 = createHash('md5')
        .update(String(index + 1))
        .digest('hex');
      return row.text('type') !== md5 || !row.text('payload')?.includes(md5.repeat(10));
    });
    assert.equal(altered.length, 0);
  });
});
