import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { CaptureScene } from '../support/capture.ts';
import { MemoryPublisher } from '../support/memory-publisher.ts';
import { until } from '../support/until.ts';

const LIMIT = 1_048_576;
/** What JSON inside jsonb could spoil: quotes, escapes, control characters, characters beyond 16 bits. */
const AWKWARD = `{"q": "\\"\\\\", "c": "\\u0001\\t", "u": "ünï ✓ 𝄞 \u{10FFFF}"}  `;

function refusing(pattern: RegExp): MemoryPublisher {
  const publisher = new MemoryPublisher();
  publisher.answer = (message) =>
    pattern.test(message.type)
      ? {
          kind: 'rejected',
          code: 'refused',
          reason: 'it said "no"',
          permanent: true,
          scope: 'event',
        }
      : { kind: 'durable' };
  return publisher;
}

describe('dead letters and clean-up', () => {
  let scene: CaptureScene | undefined;

  afterEach(async () => {
    await scene?.close();
    scene = undefined;
  });

  test('P10 headers that are no JSON, cut in the middle of a character by the message about them, are parked', async () => {
    const here = (scene = await CaptureScene.open());
    await here.sql('alter table outbox alter column headers type text');
    await here.sql(`insert into outbox (aggregatetype, aggregateid, type, payload, headers)
      values ('order', 'a', 'T', '{}', '\u{1f600} x'), ('order', 'b', 'T', '{}', '{}')`);
    const relay = here.relay();
    await here.untilEmpty();
    const letters = await here.sql(
      `select code, reason, "row" ->> 'headers' as headers from outbox_relay_dead_letters`,
    );
    assert.equal(letters.length, 1);
    assert.equal(letters[0]?.['code'], 'headers-invalid');
    assert.equal(letters[0]?.['headers'], '\u{1f600} x');
    assert.equal(relay.publisher.received.length, 1);
  });

  for (const payload of ['jsonb', 'json', 'text', 'bytea'] as const) {
    for (const source of ['the table', 'the stream'] as const) {
      test(`P1 P10 a dead letter holds the complete row: ${payload} from ${source}`, async () => {
        const here = (scene = await CaptureScene.open({ payload, env: { MAX_EVENT_BYTES: String(LIMIT) } }));
        if (source === 'the stream') await here.handOver();
        const value = payload === 'bytea' ? `convert_to($1, 'UTF8') || '\\x00ff'::bytea` : `$1::${payload}`;
        const big = `{"big": "${'ü"'.repeat(LIMIT / 4).replaceAll('"', '\\"')}"}`;
        await here.client.query('begin');
        for (const [type, text] of Object.entries({ refused: AWKWARD, oversized: big, fine: '{}' }))
          await here.sql(
            `insert into outbox (aggregatetype, aggregateid, type, payload, headers)
             values ('order', 'k "1"', '${type}', ${value}, '{"a": 9007199254740993}')`,
            [text],
          );
        await here.sql('create table kept as select * from outbox');
        await here.client.query('commit');
        const relay = here.relay(refusing(/refused/));
        await here.untilEmpty();
        await until(async () => (await here.count('outbox_relay_dead_letters')) === 2, {
          what: 'two dead letters',
        });

        const columns = await here.sql<'name'>(
          `select attname as name from pg_attribute where attrelid = 'kept'::regclass and attnum > 0`,
        );
        for (const { name } of columns) {
          const differing = await here.sql(
            `select k.type from kept k left join outbox_relay_dead_letters d on d.seq = k.seq and d.xid = k.xid::text::bigint
              where k.type <> 'fine' and d."row" ->> '${name}' is distinct from k."${name}"::text`,
          );
          assert.deepEqual(differing, [], `column ${name}`);
        }
        const codes = await here.sql(
          `select d.code, d.reason, d.attempts::text, d.event_id = k.id::text as same_id
             from outbox_relay_dead_letters d join kept k using (seq) order by d.seq`,
        );
        assert.equal(codes[0]?.['code'], 'refused');
        assert.equal(codes[0]?.['reason'], 'it said "no"');
        assert.equal(codes[1]?.['code'], 'event-too-large');
        assert.deepEqual(
          codes.map((row) => row['same_id']),
          ['t', 't'],
        );
        assert.equal(relay.publisher.received.length, 1);
      });
    }
  }

  test('P10 small rows around an oversized one in the table are delivered', async () => {
    const here = (scene = await CaptureScene.open({ env: { MAX_EVENT_BYTES: String(LIMIT) } }));
    await here.insert(3);
    await here.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload)
       values ('order', 'k', 'big', to_jsonb(repeat('x', $1)))`,
      [LIMIT + 1],
    );
    await here.insert(3, 4);
    const relay = here.relay();
    await here.untilEmpty();
    assert.equal(relay.publisher.received.length, 6);
    assert.equal(await here.count('outbox_relay_dead_letters'), 1);
  });

  test('CLEANUP=mark keeps rows with their time, and a restart delivers none of them again', async () => {
    const here = (scene = await CaptureScene.open({ env: { CLEANUP: 'mark' } }));
    await here.insert(3);
    const relay = await here.streaming();
    await here.insert(3, 4);
    await until(async () => (await here.count('outbox where delivered_at is not null')) === 6, {
      what: 'six marked rows',
    });
    await relay.stop();
    const next = await here.streaming();
    await here.insert(1, 7);
    await until(() => next.publisher.received.length > 0, { what: 'the seventh' });
    assert.deepEqual(next.publisher.payloads, ['{"n": 7}']);
  });

  test('CLEANUP=none leaves the table alone, and a restart delivers none of it again', async () => {
    const here = (scene = await CaptureScene.open({ env: { CLEANUP: 'none' } }));
    await here.insert(3);
    const relay = await here.streaming();
    await here.insert(3, 4);
    await until(() => relay.publisher.received.length === 6, { what: 'six events' });
    await relay.stop();
    const next = await here.streaming();
    await here.insert(1, 7);
    await until(() => next.publisher.received.length > 0, { what: 'the seventh' });
    assert.deepEqual(next.publisher.payloads, ['{"n": 7}']);
    assert.equal(await here.count('outbox where delivered_at is null'), 7);
  });
});
