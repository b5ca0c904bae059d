import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Scene, interruptedDelivery } from '../support/crash-run.ts';
import { assertDelivered, type Verdict } from '../support/judge.ts';
import type { BrokerName } from '../support/target.ts';

/** Four writers, 100 keys, 1,000 events a second, 15 % rolled back. The long form is `npm run fault`. */
const KILLS = 4;
const TERMINATIONS = 3;
/** Small, so that the bound of duplicates is one that a broken relay would exceed. */
const MAX_IN_FLIGHT_EVENTS = 500;

async function interrupted(
  broker: BrokerName,
  signal: 'SIGKILL' | 'SIGTERM',
  rounds: number,
): Promise<{ verdict: Verdict; exits: (number | null)[] }> {
  const scene = await Scene.open(broker);
  try {
    const env = { MAX_IN_FLIGHT_EVENTS: String(MAX_IN_FLIGHT_EVENTS) };
    return await interruptedDelivery(scene, { rounds, signal, lifeMs: [300, 1200], env });
  } finally {
    await scene.close();
  }
}

for (const broker of ['kafka', 'rabbitmq'] as const) {
  describe(`interrupted delivery to ${broker}`, () => {
    test('P1 P2 P3 P4 SIGKILL at random moments: nothing lost or invented, order kept, duplicates bounded', async (t) => {
      const { verdict, exits } = await interrupted(broker, 'SIGKILL', KILLS);
      assert.deepEqual(exits, [...Array.from({ length: KILLS }, () => null), 0]);
      assertDelivered(verdict, { maxDuplicates: KILLS * MAX_IN_FLIGHT_EVENTS });
      t.diagnostic(
        `${verdict.committed} committed, ${verdict.duplicates} duplicates after ${KILLS} kills at once after a start`,
      );
    });

    test('P1 P2 P3 P4 SIGTERM at random moments: drained, no duplicate', async () => {
      const { verdict, exits } = await interrupted(broker, 'SIGTERM', TERMINATIONS);
      assert.deepEqual(
        exits,
        Array.from({ length: TERMINATIONS + 1 }, () => 0),
      );
      assertDelivered(verdict, { maxDuplicates: 0 });
    });
  });
}
