import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { afterEach, describe, test } from 'node:test';
import type { Pgoutput } from 'pg-logical-replication';
import type { OutboxEvent } from '../../src/pipeline/capture/event.ts';
import type { ReplicationStream } from '../../src/pipeline/capture/streaming/stream.ts';
import { viewOf } from '../../src/pipeline/capture/byte-range.ts';
import { CaptureScene, readEvents } from '../support/capture.ts';
import { LibraryReader } from '../support/library-reader.ts';
import { until } from '../support/until.ts';

const SIZES = [0, 1, 126, 127, 1_900, 2_100, 8_191, 8_192, 70_000, 1_200_000];

/** UTF-8 of every length, its edges, joined emoji, both directions, combining marks, the byte order mark. */
const TEXTS = [
  '',
  ' ',
  '"quotes" \\ and \'more\'',
  'tab\t newline\n return\r',
  '\u0001\u001F\u007F\u0080',
  '\u07FF\u0800\uFFFF\u{10000}\u{10FFFF}',
  '\uFEFFwith a byte order mark',
  'ünï ✓ 𝄞 👩‍👩‍👧‍👦 e\u0301 עברית العربية 中文',
  'null',
  '{"n": 9007199254740993, "n": 1.0, "e": 1e400, "a":[ ] }',
];

const JSON_TEXTS = TEXTS.map(
  (text) => `{ "t":${JSON.stringify(text)},  "n": 12345678901234567890.10, "n": 1 }`,
);

async function insert(scene_: CaptureScene, payload: string | Buffer | null, type = 't'): Promise<void> {
  await scene_.sql(
    `insert into outbox (aggregatetype, aggregateid, type, payload) values ('order', 'k', $1, $2)`,
    [type, payload],
  );
}

const texts = ({ row }: OutboxEvent): (string | null | undefined)[] =>
  row.columns.map((name) => row.text(name));

const payloadOf = ({ row }: OutboxEvent): Buffer | null | undefined => viewOf(row.bytes('payload'));

describe('values as stored, from both sources', () => {
  let scene: CaptureScene | undefined;
  let stream: ReplicationStream | undefined;

  afterEach(async () => {
    await stream?.close();
    await scene?.close();
    scene = stream = undefined;
  });

  async function opened(
    payload: 'jsonb' | 'json' | 'text' | 'bytea',
  ): Promise<{ scene: CaptureScene; startLsn: bigint }> {
    scene = await CaptureScene.open({ payload });
    return { scene, startLsn: await scene.makeSlot() };
  }

  /** The same rows by stream and by table pass; equal in every column. Gives the stream's back. */
  async function both(here: CaptureScene, startLsn: bigint, count: number): Promise<OutboxEvent[]> {
    stream = await here.openStream({ startLsn });
    const streamed = await readEvents(stream, count);
    const passed = await readEvents(await here.tablePass(), count);
    for (const [index, event] of streamed.entries()) {
      const other = passed[index] as OutboxEvent;
      assert.deepEqual(event.row.columns, other.row.columns);
      assert.deepEqual(texts(event), texts(other));
      assert.ok(
        payloadOf(event) === null
          ? payloadOf(other) === null
          : payloadOf(event)?.equals(payloadOf(other) as Buffer),
      );
      assert.equal(event.row.typeOid('payload'), other.row.typeOid('payload'));
      assert.deepEqual([event.seq, event.xid], [other.seq, other.xid]);
    }
    return streamed;
  }

  for (const type of ['jsonb', 'json', 'text'] as const) {
    test(`P2 ${type}: the bytes of the database's own text`, async () => {
      const { scene: here, startLsn } = await opened(type);
      const long = SIZES.map((size) => JSON.stringify(randomBytes(size).toString('base64')));
      const values = [...(type === 'text' ? TEXTS : JSON_TEXTS), ...long, null];
      for (const value of values) await insert(here, value);
      const events = await both(here, startLsn, values.length);
      const stored = await here.sql<'payload'>('select payload::text from outbox order by seq');
      for (const [index, event] of events.entries())
        assert.equal(payloadOf(event)?.toString() ?? null, stored[index]?.payload);
      if (type !== 'jsonb')
        assert.deepEqual(
          events.map(({ row }) => row.text('payload')),
          values,
        );
    });
  }

  test('P2 a domain is taken for the type below it, by both sources', async () => {
    const { scene: here, startLsn } = await opened('bytea');
    const bytes = Buffer.from([0, 1, 254, 255]);
    await here.sql(
      'create domain blob as bytea; create domain small_blob as blob check (octet_length(value) < 9)',
    );
    await here.sql('create domain document as jsonb');
    await here.sql('alter table outbox alter payload type small_blob, alter headers type document');
    await insert(here, bytes);
    const [event] = await both(here, startLsn, 1);
    assert.ok(event && payloadOf(event)?.equals(bytes));
    assert.deepEqual([event.row.typeOid('payload'), event.row.typeOid('headers')], [17, 3802]);
  });

  test('P2 bytea: exactly the bytes, empty and NULL are different', async () => {
    const { scene: here, startLsn } = await opened('bytea');
    const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    const values = [every, ...SIZES.map((size) => randomBytes(size)), Buffer.alloc(0), null];
    for (const value of values) await insert(here, value);
    const events = await both(here, startLsn, values.length);
    for (const [index, event] of events.entries()) {
      const expected = values[index] as Buffer | null;
      assert.ok(expected === null ? payloadOf(event) === null : payloadOf(event)?.equals(expected));
    }
  });

  test('P2 TOASTed payloads, compressed and not, inline and external', async () => {
    const { scene: here, startLsn } = await opened('text');
    for (const storage of ['plain', 'main', 'extended', 'external']) {
      await here.sql(`alter table outbox alter column payload set storage ${storage}`);
      const sizes = storage === 'plain' ? [7_000] : [7_000, 500_000];
      for (const size of sizes) {
        await insert(here, 'x'.repeat(size), storage);
        await insert(here, randomBytes(size / 2).toString('hex'), storage);
      }
    }
    const stored = await here.sql<'payload'>('select payload from outbox order by seq');
    const events = await both(here, startLsn, stored.length);
    for (const [index, { row }] of events.entries())
      assert.ok(row.text('payload') === stored[index]?.payload, `row ${index}`);
  });

  test('P7 a payload of 50 MB from both sources', async (context) => {
    const { scene: here, startLsn } = await opened('text');
    const bytes = 50 * 1_048_576;
    await here.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload)
       select 'order', 'k', 't', string_agg(md5(n::text), '') from generate_series(1, $1::int) n`,
      [bytes / 32],
    );
    const digest = await here.value('select md5(payload) from outbox');
    const startMs = performance.now();
    const maxEventBytes = 2 * bytes;
    stream = await here.openStream({ startLsn, maxEventBytes });
    const [event] = await readEvents(stream, 1, 60_000);
    context.diagnostic(`50 MB by stream: ${Math.round(performance.now() - startMs)} ms, RSS ${rssMb()} MB`);
    const table = await here.tablePass({ config: { ...here.config, maxEventBytes } });
    const [row] = await readEvents(table, 1, 60_000);
    context.diagnostic(`both held: RSS ${rssMb()} MB`);
    const streamed = viewOf(event?.row.bytes('payload')) as Buffer;
    assert.equal(streamed.length, bytes);
    assert.ok(streamed.equals(viewOf(row?.row.bytes('payload')) as Buffer));
    assert.equal(createHash('md5').update(streamed).digest('hex'), digest);
  });

  test("P2 differential: our framing and the library's own transport read the same rows", async () => {
    const { scene: here, startLsn } = await opened('text');
    const theirs = `${here.config.slotName}_library`;
    await here.makeSlot(theirs);
    const count = 3_000;
    await here.client.query('begin');
    for (let n = 0; n < count; n++) {
      await insert(here, randomText(n), `t${n}`);
      if (n % 50 === 0) await here.client.query('commit; begin');
    }
    await here.client.query('commit');
    const library = new LibraryReader(here);
    try {
      library.subscribe(theirs);
      await until(() => library.inserts.length === count, { timeoutMs: 60_000, what: 'all rows' });
      stream = await here.openStream({ startLsn });
      const events = await readEvents(stream, count, 60_000);
      for (const [index, { row }] of events.entries()) {
        const { new: other, relation } = library.inserts[index] as Pgoutput.MessageInsert;
        assert.deepEqual(
          row.columns,
          relation.columns.map(({ name }) => name),
        );
        for (const name of ['id', 'aggregatetype', 'aggregateid', 'type', 'payload', 'headers'])
          assert.equal(row.text(name), other[name] as string | null, `row ${index}, ${name}`);
      }
    } finally {
      await library.close();
    }
  });
});

function randomText(n: number): string | null {
  if (n % 17 === 0) return null;
  const size = n % 500 === 0 ? 300_000 : Math.floor(Math.random() * 400);
  const points = Array.from({ length: size }, () => randomPoint());
  return points.map((point) => String.fromCodePoint(point)).join('');
}

/** Any character that PostgreSQL can store: neither NUL nor half of a surrogate pair. */
function randomPoint(): number {
  const edges = [0x22, 0x27, 0x5c, 0x7f, 0x80, 0x7ff, 0x800, 0xffff, 0x10000, 0x10ffff, 0x0a];
  if (Math.random() < 0.3) return edges[Math.floor(Math.random() * edges.length)] as number;
  const point = 1 + Math.floor(Math.random() * 0x10fffe);
  return point >= 0xd800 && point <= 0xdfff ? 0x2713 : point;
}

function rssMb(): number {
  return Math.round(process.memoryUsage.rss() / 1_048_576);
}
