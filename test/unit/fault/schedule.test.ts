import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FAULT_KINDS, KINDS, makeSchedule, type Schedule } from '../../fault/random/schedule.ts';
import { shrink, smaller } from '../../fault/random/shrink.ts';

const SEEDS = Array.from({ length: 300 }, (_, index) => index + 1);
const ALL = (['kafka', 'rabbitmq'] as const).flatMap((broker) =>
  SEEDS.map((seed) => makeSchedule(seed, broker)),
);

test('the same seed gives the same schedule, another one another', () => {
  assert.deepEqual(makeSchedule(7, 'kafka'), makeSchedule(7, 'kafka'));
  assert.notDeepEqual(makeSchedule(7, 'kafka'), makeSchedule(8, 'kafka'));
  assert.notDeepEqual(makeSchedule(7, 'kafka').faults, makeSchedule(7, 'rabbitmq').faults);
  assert.equal(new Set(ALL.map((schedule) => JSON.stringify(schedule))).size, ALL.length);
});

test('every kind of fault is drawn, for its broker alone', () => {
  for (const broker of ['kafka', 'rabbitmq'] as const) {
    const drawn = new Set(
      ALL.filter((each) => each.broker === broker).flatMap(({ faults }) => faults.map(({ kind }) => kind)),
    );
    const possible = FAULT_KINDS.filter((kind) => {
      const known = KINDS[kind];
      return !('only' in known) || known.only === broker;
    });
    assert.deepEqual(
      FAULT_KINDS.filter((kind) => drawn.has(kind)),
      possible,
    );
  }
});

test('rows are kept in some rounds, and only where a slot alone can tell what is delivered', () => {
  const kept = ALL.filter(({ env }) => env['CLEANUP'] === 'none');
  assert.ok(kept.length > ALL.length / 30, String(kept.length));
  for (const { env, faults } of kept) {
    assert.notEqual(env['SOURCE'], 'polling');
    assert.ok(!faults.some(({ kind }) => /^slot-|failover/.test(kind)));
  }
});

test('every round has a fault, and every fault begins while the writers write', () => {
  for (const { faults, lifeMs } of ALL) {
    assert.ok(faults.length > 0 && faults.length <= 5);
    for (const { atMs, forMs } of faults) {
      assert.ok(atMs >= 0 && atMs < lifeMs);
      assert.ok(forMs >= 0 && atMs + forMs <= lifeMs + 1_500);
    }
  }
});

test('no two faults have one thing at the same time', () => {
  for (const { faults, seed } of ALL) {
    const spans = Map.groupBy(faults, ({ kind, target }) => {
      const { resource } = KINDS[kind];
      // With three relays or fewer, the same target is the same relay.
      return resource === 'relay' ? `relay ${target}` : resource;
    });
    for (const [thing, those] of spans) {
      const sorted = those.toSorted((a, b) => a.atMs - b.atMs);
      for (const [index, each] of sorted.slice(1).entries()) {
        const before = sorted[index] ?? each;
        assert.ok(each.atMs > before.atMs + before.forMs, `seed ${seed}: two faults of ${thing} overlap`);
      }
    }
  }
});

test('only the kinds that were asked for are drawn', () => {
  for (const seed of SEEDS.slice(0, 50)) {
    const { faults, relays } = makeSchedule(seed, 'kafka', { kinds: ['leader-moved'], relays: 2 });
    assert.ok(faults.every(({ kind }) => kind === 'leader-moved'));
    assert.equal(relays, 2);
  }
});

const BUSY = ALL.find(
  ({ faults, relays, load }) => faults.length >= 3 && relays > 1 && load.bursts.length > 0,
) as Schedule;

test('a smaller schedule has one thing less', () => {
  const candidates = smaller(BUSY);
  assert.equal(candidates.length, BUSY.faults.length + 2);
  for (const candidate of candidates.slice(0, BUSY.faults.length))
    assert.equal(candidate.faults.length, BUSY.faults.length - 1);
  assert.deepEqual(candidates.at(-2)?.load.bursts, []);
  assert.equal(candidates.at(-1)?.relays, BUSY.relays - 1);
  assert.deepEqual(
    smaller({ ...BUSY, faults: BUSY.faults.slice(0, 1), relays: 1, load: calm(BUSY.load) }),
    [],
  );
});

function calm(load: Schedule['load']): Schedule['load'] {
  return { ...load, bursts: [], long: [], big: [], crowds: [], poison: [], nowhere: [] };
}

test('shrinking leaves what the failure needs, and stops when its rounds are used up', async () => {
  const guilty = BUSY.faults[1];
  assert.ok(guilty);
  let rounds = 0;
  const fails = async (schedule: Schedule): Promise<boolean> => {
    rounds++;
    return await Promise.resolve(schedule.faults.includes(guilty));
  };
  const smallest = await shrink(BUSY, fails, 100);
  assert.deepEqual(smallest.faults, [guilty]);
  assert.deepEqual(smallest.load, calm(BUSY.load));
  assert.equal(smallest.relays, 1);
  rounds = 0;
  await shrink(BUSY, fails, 2);
  assert.equal(rounds, 2);
});
