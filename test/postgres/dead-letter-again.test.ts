import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { CaptureScene } from '../support/capture.ts';
import { until } from '../support/until.ts';

const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
const MIB = 1_048_576;

/** The statement as users find it, for another number. */
function again(number: number): string {
  const statement = /```sql\n(with letter as .*?)```/s.exec(README)?.[1];
  assert.ok(statement, 'README offers it');
  return statement.replaceAll('17', String(number));
}

describe('the statement that sends a dead letter again', () => {
  let scene: CaptureScene;

  beforeEach(async () => void (scene = await CaptureScene.open()));

  afterEach(async () => await scene.close());

  /** Parks one event; returns what its row held. */
  async function parked(payloadBytes: number): Promise<Record<string, string | null>> {
    const relay = await scene.streaming(undefined, { MAX_EVENT_BYTES: '1KiB' });
    const [row] = await scene.sql(
      `insert into outbox (aggregatetype, aggregateid, type, payload, headers)
       values ('order', 'key', 'Placed', to_jsonb(repeat('x', $1)), jsonb_build_object('note', repeat('y', 500)))
       returning id, md5(payload::text) as payload, headers`,
      [payloadBytes],
    );
    await until(async () => (await scene.count('outbox_relay_dead_letters')) === 1, {
      what: 'the event to be parked',
      timeoutMs: 30_000,
    });
    await scene.untilEmpty();
    await relay.stop();
    return row ?? {};
  }

  for (const [kind, bytes] of [
    ['small', 2_000],
    ['large, so that its values stand apart', 17 * MIB],
  ] as const) {
    test(`P1 P10 ${kind}: the row is as it was, once, and the dead letter is gone`, async () => {
      const row = await parked(bytes);
      const number = Number(await scene.value('select number from outbox_relay_dead_letters'));
      assert.equal(await scene.count('outbox_relay_dead_letter_values'), bytes > 16 * MIB ? 2 : 0);
      await scene.sql(again(number));
      await scene.sql(again(number));
      assert.deepEqual(await scene.sql(`select id, md5(payload::text) as payload, headers from outbox`), [
        row,
      ]);
      assert.equal(await scene.count('outbox_relay_dead_letters'), 0);
      assert.equal(await scene.count('outbox_relay_dead_letter_values'), 0);
    });
  }
});
