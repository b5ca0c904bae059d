import assert from 'node:assert/strict';
import type { FaultPoint } from '../../src/lifecycle/fault-point.ts';
import { Scene } from '../support/crash-run.ts';
import type { Verdict } from '../support/judge.ts';
import { streamedTimes, terminated } from '../support/modes.ts';
import type { RelayProcess } from '../support/relay-process.ts';
import type { BrokerName } from '../support/target.ts';
import { until } from '../support/until.ts';
import { dropSlot } from '../support/drop-slot.ts';

/** Points between polling and streaming, both ways, and the settings with which the relay passes them. */
const POINTS: readonly (readonly [FaultPoint, Readonly<Record<string, string>>])[] = [
  ['during-poll', {}],
  ['after-slot-create', {}],
  ['after-snapshot-import', {}],
  ['after-handover-row', {}],
  ['after-handover-complete', {}],
  ['during-table-pass', { SOURCE: 'streaming' }],
];
const WAITING_ROWS = 50;
const KILLED_TIMEOUT_MS = 60_000;

export interface HandoverKillsResult {
  readonly verdict: Verdict;
  readonly kills: number;
}

/**
 * SIGKILL at every point of the hand-over, `times` each: to a relay that starts and finds no slot, and to one that
 * streams and loses it. Four writers go on all the time.
 */
export async function handoverKills(run: {
  broker: BrokerName;
  times: number;
  rate: number;
}): Promise<HandoverKillsResult> {
  const scene = await Scene.open(run.broker, { shop: { rate: run.rate } });
  try {
    scene.shop.start();
    await settle(scene);
    let kills = 0;
    for (let round = 0; round < run.times; round++) {
      for (const [point, env] of POINTS) {
        await dropSlot(scene.database.url, scene.database.name);
        await until(async () => (await scene.waiting()) >= WAITING_ROWS, { what: 'rows that wait' });
        await killed(scene.startRelay({ env, fault: `${point}:kill:1` }), point);
        await settle(scene);
        const streaming = scene.startRelay({ env, fault: `${point}:kill:1` });
        await streamedTimes(streaming, 1);
        await dropSlot(scene.database.url, scene.database.name);
        await killed(streaming, point);
        await settle(scene);
        kills += 2;
      }
    }
    await scene.shop.stop();
    const last = scene.startRelay();
    await scene.drained();
    await terminated(last);
    return { verdict: await scene.verdict(), kills };
  } finally {
    await scene.close();
  }
}

/** A relay that streams, and ends in order: the next one passes a point of the hand-over only when it loses its slot. */
async function settle(scene: Scene): Promise<void> {
  const relay = scene.startRelay();
  await streamedTimes(relay, 1, KILLED_TIMEOUT_MS);
  await terminated(relay);
}

async function killed(relay: RelayProcess, point: FaultPoint): Promise<void> {
  await relay.waitForLine(new RegExp(`^fault-point ${point}$`), KILLED_TIMEOUT_MS);
  assert.deepEqual(await relay.exit, { code: null, signal: 'SIGKILL' }, relay.output);
}
