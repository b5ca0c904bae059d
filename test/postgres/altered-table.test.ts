import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { DURABLE } from '../../src/pipeline/publish/publisher.ts';
import { CaptureScene, type RunningRelay } from '../support/capture.ts';
import { MemoryPublisher } from '../support/memory-publisher.ts';

/** As the application's migrations would alter it, while one stage polls it for weeks. */
describe('the outbox table is altered while it is polled', () => {
  let scene: CaptureScene;
  let publisher: MemoryPublisher;
  let contentTypes: string[];

  beforeEach(async () => {
    scene = await CaptureScene.open({ env: { SOURCE: 'polling', CLEANUP: 'delete' } });
    publisher = new MemoryPublisher();
    contentTypes = [];
    publisher.answer = ({ contentType }) => {
      contentTypes.push(contentType);
      return DURABLE;
    };
  });

  afterEach(async () => await scene.close());

  /** It has read the table's columns, and polls on. */
  async function polling(env: Readonly<Record<string, string>> = {}): Promise<RunningRelay> {
    const relay = scene.relay(publisher, env);
    await scene.insert(2);
    await scene.untilEmpty();
    return relay;
  }

  /** Nothing of it ended the stage. */
  async function assertUndisturbed(relay: RunningRelay): Promise<void> {
    await scene.untilEmpty();
    assert.equal(
      relay.logLines.filter((line) => /mode: polling/.test(line)).length,
      1,
      relay.logLines.join(''),
    );
    assert.doesNotMatch(relay.logLines.join(''), /halted/);
  }

  async function insert(payload: string | Buffer, more: Record<string, string> = {}): Promise<void> {
    const values = { aggregatetype: 'order', aggregateid: 'k', type: 't', payload, ...more };
    const places = Object.keys(values).map((_, i) => `$${i + 1}`);
    await scene.sql(
      `insert into outbox (${Object.keys(values).join(', ')}) values (${places.join(', ')})`,
      Object.values(values),
    );
  }

  test('P2 the payload becomes bytea: its bytes arrive, not their text form', async () => {
    const relay = await polling();
    await scene.sql(
      `alter table outbox alter column payload type bytea using convert_to(payload::text, 'UTF8')`,
    );
    const bytes = Buffer.from([0, 0x7b, 0x22, 0xff]);
    await insert(bytes);
    await assertUndisturbed(relay);
    assert.deepEqual(publisher.bodies.at(-1), bytes);
    assert.deepEqual(contentTypes, ['application/json', 'application/json', 'application/octet-stream']);
  });

  test('P1 a column is added: a dead letter of the row has it', async () => {
    const relay = await polling();
    await scene.sql('alter table outbox add column tenant text');
    await insert('{}', { tenant: 'acme', headers: '[]' });
    await assertUndisturbed(relay);
    const [letter] = await scene.sql(
      `select code, "row" ->> 'tenant' as tenant from outbox_relay_dead_letters`,
    );
    assert.deepEqual({ ...letter }, { code: 'headers-invalid', tenant: 'acme' });
  });

  test('P7 P10 a column is added that makes rows too large: they are parked without being fetched', async () => {
    const relay = await polling({ MAX_EVENT_BYTES: '64KiB' });
    await scene.sql('alter table outbox add column attachment text');
    await insert('{"n": 3}', { attachment: 'x'.repeat(100_000) });
    await scene.insert(1, 4);
    await assertUndisturbed(relay);
    assert.deepEqual(relay.numbers, [1, 2, 4]);
    const [letter] = await scene.sql(
      `select code, reason, length("row" ->> 'attachment')::text as kept from outbox_relay_dead_letters`,
    );
    assert.deepEqual([letter?.['code'], letter?.['kept']], ['event-too-large', '100000']);
    assert.match(letter?.['reason'] ?? '', /has 100\d\d\d bytes/);
  });

  test('P1 a column that nobody needs is dropped: the poll goes on', async () => {
    await scene.sql('alter table outbox add column note text, add column raw bytea');
    const relay = await polling();
    await scene.sql('alter table outbox drop column note, drop column raw, drop column headers');
    await insert('{"n": 3}');
    await assertUndisturbed(relay);
    assert.deepEqual(relay.numbers, [1, 2, 3]);
  });

  test('the time of creation is dropped: events have that of their look', async () => {
    const relay = await polling();
    await scene.sql('alter table outbox drop column created_at');
    await insert('{"n": 3}');
    await assertUndisturbed(relay);
    assert.deepEqual(relay.numbers, [1, 2, 3]);
  });

  test('a column that is needed is dropped: a clear stop', async () => {
    const relay = await polling();
    await scene.sql('alter table outbox drop column payload');
    await scene.sql(`insert into outbox (aggregatetype, aggregateid, type) values ('order', 'k', 't')`);
    assert.match(await relay.logged(/halted: this needs a person/), /column-missing/);
    assert.equal(await scene.count('outbox'), 1);
  });

  test(
    'P1 P2 P3 altered again and again under load: every event once, in order, with the bytes that were stored',
    { timeout: 120_000 },
    async () => {
      const relay = await polling();
      const rounds = 30;
      const fresh = 40;
      for (let round = 0; round < rounds; round++) {
        const [type, using] = (
          [
            ['bytea', `convert_to(payload::text, 'UTF8')`],
            ['text', `convert_from(payload, 'UTF8')`],
            ['json', 'payload::json'],
          ] as const
        )[round % 3] as [string, string];
        await scene.sql(`alter table outbox alter column payload type ${type} using ${using}`);
        // The same bytes in every type: whichever of them a row was read as, its body is the same.
        const value = `format('{"n": %s}', n)`;
        await scene.sql(
          `insert into outbox (aggregatetype, aggregateid, type, payload)
           select 'order', 'k', 't', ${type === 'bytea' ? `convert_to(${value}, 'UTF8')` : `${value}::${type}`}
             from generate_series($1::int, $2::int) n`,
          [3 + round * fresh, 2 + (round + 1) * fresh],
        );
        await scene.sql(
          `alter table outbox ${round % 2 === 0 ? 'add column extra text' : 'drop column extra'}`,
        );
      }
      await assertUndisturbed(relay);
      assert.deepEqual(
        publisher.bodies.map(String),
        Array.from({ length: 2 + rounds * fresh }, (_, i) => `{"n": ${i + 1}}`),
      );
    },
  );
});

describe('columns whose types are domains, from the table', () => {
  let scene: CaptureScene;

  beforeEach(async () => {
    scene = await CaptureScene.open({ env: { SOURCE: 'polling' } });
    await scene.sql(`create domain document as jsonb check (value is not null)`);
    await scene.sql(`create domain order_document as document`);
    await scene.sql(`create domain small as bytea`);
    await scene.sql(`create domain avro as small check (octet_length(value) > 0)`);
  });

  afterEach(async () => await scene.close());

  test('P2 the body and its content type are those of the type below, also below several domains', async () => {
    const publisher = new MemoryPublisher();
    const contentTypes: string[] = [];
    publisher.answer = ({ contentType }) => {
      contentTypes.push(contentType);
      return DURABLE;
    };
    scene.relay(publisher);
    const bytes = Buffer.from([0, 1, 0xfe, 0xff]);
    for (const [type, value] of [
      ['order_document', '{"n": 1}'],
      ['avro', bytes],
    ] as const) {
      await scene.sql(`alter table outbox alter column payload type ${type} using null`);
      await scene.sql(
        `insert into outbox (aggregatetype, aggregateid, type, payload) values ('order', 'k', 't', $1)`,
        [value],
      );
      await scene.untilEmpty();
    }
    assert.deepEqual(publisher.bodies, [Buffer.from('{"n": 1}'), bytes]);
    assert.deepEqual(contentTypes, ['application/json', 'application/octet-stream']);
  });

  test('P7 P10 a giant with such columns is parked as it is stored', async () => {
    await scene.sql(
      'alter table outbox alter column payload type avro using null, add column details order_document',
    );
    scene.relay();
    const megabytes = 9;
    await scene.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload, details)
       values ('order', 'k', 't', convert_to(repeat('x', ${megabytes} * 1048576), 'UTF8'),
               jsonb_build_object('text', repeat('y', 1000)))`,
    );
    await scene.untilEmpty();
    const values = await scene.sql(
      `select column_name, octet_length(as_bytea)::text as bytes, length(as_jsonb ->> 'text')::text as text
         from outbox_relay_dead_letter_values order by column_name`,
    );
    assert.deepEqual(
      values.map((value) => [value['column_name'], value['bytes'], value['text']]),
      [
        ['details', null, '1000'],
        ['payload', String(megabytes * 1_048_576), null],
      ],
    );
  });
});
