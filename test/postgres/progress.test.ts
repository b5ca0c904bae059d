import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { ProgressStore } from '../../src/pipeline/settle/progress.ts';
import type { Write } from '../../src/pipeline/settle/settlement.ts';
import { CaptureScene } from '../support/capture.ts';

function writeAt(position: bigint): Write {
  return { settled: [], removable: [], retried: [], position, beyond: [] };
}

describe('the progress row and its slot', () => {
  let scene: CaptureScene;

  beforeEach(async () => void (scene = await CaptureScene.open()));

  afterEach(async () => await scene.close());

  /** A relay streamed here, and has ended. */
  async function streamed(): Promise<ProgressStore> {
    const relay = await scene.streaming();
    await scene.insert(2);
    await scene.untilEmpty();
    await relay.stop();
    return new ProgressStore(scene.config, BigInt((await scene.progress('lease_token')) ?? ''));
  }

  test('P4 P5 a statement that arrives late, by a connection given up long ago, takes nothing back', async () => {
    const store = await streamed();
    const before = await store.read(scene.client);
    assert.ok(before);
    const { slotCreatedLsn, durableLsn } = before;
    await assert.rejects(store.write(scene.client, writeAt(durableLsn - 1n), 'complete', slotCreatedLsn), {
      code: 'progress-lost',
    });
    assert.equal((await store.read(scene.client))?.durableLsn, durableLsn);
    // Again, after an unknown end, it may come.
    await store.write(scene.client, writeAt(durableLsn), 'complete', slotCreatedLsn);
  });

  test(
    'P1 P8 a SLOT_NAME that belongs to another outbox ends the start, and changes nothing',
    { timeout: 60_000 },
    async () => {
      await streamed();
      await scene.sql('create table outbox2 (like outbox including all)');
      const row = await scene.sql('select * from outbox_relay_progress');
      const relay = scene.relayProcess({ env: { OUTBOX_TABLE: 'outbox2' } });
      assert.equal((await relay.exit).code, 78, relay.output);
      assert.match(relay.output, /slot-of-other-table/);
      assert.match(
        relay.output,
        /belongs to the outbox public\.outbox, and this relay is for public\.outbox2/,
      );
      assert.deepEqual(await scene.sql('select * from outbox_relay_progress'), row);
      assert.ok(await scene.slot());
    },
  );
});
