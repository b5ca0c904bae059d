import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Arena } from './random/arena.ts';
import { search } from './random/planted.ts';
import { PLANTS } from './random/plants.ts';
import { runRound } from './random/round.ts';
import { makeSchedule, type Broker } from './random/schedule.ts';

/** A handful of what `npm run fault` does for hours; one broker instead of three, and shorter lives. */
const LIFE_MS = 3_000;
const SEEDS: Readonly<Record<Broker, readonly number[]>> = { kafka: [12, 20], rabbitmq: [6, 16] };

for (const broker of ['kafka', 'rabbitmq'] as const) {
  void describe(`random faults on ${broker}`, () => {
    let arena: Arena;

    before(async () => {
      arena = await Arena.open(broker, { kafkaBrokers: 1 });
    });

    after(async () => {
      await arena.remove();
    });

    for (const seed of SEEDS[broker]) {
      const schedule = makeSchedule(seed, broker, { lifeMs: LIFE_MS });
      const kinds = schedule.faults.map(({ kind }) => kind).join(', ');
      void test(`P1 P2 P3 P4 P7 P9 P10 seed ${seed}: ${kinds}`, async () => {
        const { findings, broken, notMade, output } = await runRound(arena, schedule);
        assert.deepEqual(broken, [], output.join('\n'));
        assert.deepEqual(notMade, []);
        assert.ok(findings.committed > 0);
      });
    }

    if (broker === 'rabbitmq')
      void test('the judge finds a relay that takes a returned message for a delivered one', async () => {
        const plant = PLANTS.find(({ name }) => name === 'return-ignored');
        assert.ok(plant);
        const { complaints, control } = await search(arena, plant, { maxRounds: 1 });
        assert.match(complaints.join('\n'), /\d+ lost/);
        assert.deepEqual(control, []);
      });
  });
}
