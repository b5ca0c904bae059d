import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { offerSizeLimit } from '../../src/postgres/size-limit.ts';
import { CaptureScene } from '../support/capture.ts';
import { RelayProcess } from '../support/relay-process.ts';

const LIMIT = 1_048_576;
const TEXT = `repeat('x', $1)`;
/** A payload of so many characters, and how many of them pass. */
const PAYLOADS = {
  jsonb: { value: `to_jsonb(${TEXT})`, fitting: LIMIT - 2 },
  json: { value: `to_json(${TEXT})`, fitting: LIMIT - 2 },
  text: { value: TEXT, fitting: LIMIT },
  bytea: { value: `convert_to(${TEXT}, 'UTF8')`, fitting: LIMIT / 2 },
};

describe('the size limit that migrate offers', () => {
  let scene: CaptureScene;

  beforeEach(async () => {
    scene = await CaptureScene.open({ env: { MAX_EVENT_BYTES: '1MiB' } });
  });

  afterEach(async () => await scene.close());

  test('P7 refuses what the relay would park, whatever the type, and leaves rows of before', async () => {
    for (const [type, { value, fitting }] of Object.entries(PAYLOADS)) {
      await scene.sql('alter table outbox drop constraint if exists outbox_payload_size');
      await scene.sql(`truncate outbox; alter table outbox alter payload type ${type} using null`);
      const insert = async (length: number): Promise<unknown> =>
        await scene.sql(
          `insert into outbox (aggregatetype, aggregateid, type, payload) values ('a', 'b', 'c', ${value})`,
          [length],
        );
      await insert(fitting + 1);
      await scene.sql((await offerSizeLimit(scene.client, scene.config)) ?? '');
      await insert(fitting);
      await assert.rejects(insert(fitting + 1), { code: '23514' }, type);
      assert.equal(await offerSizeLimit(scene.client, scene.config), undefined, 'it is there');
      assert.equal(await scene.count('outbox'), 2);
    }
  });

  test('P7 migrate prints it after what it applied, and does not run it', async () => {
    await scene.sql('drop publication outbox_relay');
    const migration = RelayProcess.start({ args: ['migrate'], env: scene.env });
    assert.deepEqual(await migration.exit, { code: 0, signal: null }, migration.output);
    assert.deepEqual(migration.stdout, ['applied publication']);
    assert.match(migration.stderr.join('\n'), /^-- offered, not run.*\n-- alter table .* check/);
    const checks = `pg_constraint where contype = 'c' and conrelid = 'outbox'::regclass`;
    assert.equal(await scene.count(checks), 0);
  });
});
