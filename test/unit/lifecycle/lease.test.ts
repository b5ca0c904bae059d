import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { GRACE_MS, Lease, LEASE_MS, LeaseWatch } from '../../../src/lifecycle/lease.ts';
import { simulate } from './lease-world.ts';

const at = (ms: number): { monotonicMs: number; wallMs: number } => ({ monotonicMs: ms, wallMs: ms });
const row = (renewedAt: string) => ({ holder: 'a', token: 1n, renewedAt });

test('P8 the lease holds for its time from before the renewal was sent, by both clocks', () => {
  const lease = new Lease(1n, at(1_000));
  assert.ok(lease.holds(at(1_000 + LEASE_MS - 1)));
  assert.ok(!lease.holds(at(1_000 + LEASE_MS)));
  // The machine slept: the monotonic clock stood still. Or somebody set the other one.
  assert.ok(!lease.holds({ monotonicMs: 1_001, wallMs: 1_000 + LEASE_MS }));
  assert.ok(!lease.holds({ monotonicMs: 1_000 + LEASE_MS, wallMs: 1_001 }));
  assert.ok(!lease.holds({ monotonicMs: 1_001, wallMs: 999 }));
  lease.renewed(at(5_000));
  assert.ok(lease.holds(at(5_001)));
  lease.end();
  lease.renewed(at(5_002));
  assert.ok(!lease.holds(at(5_003)), 'what was lost is not won back by a late answer');
});

test('P8 who waits counts from the last change that it saw, on its own clock', () => {
  const watch = new LeaseWatch();
  assert.equal(watch.waitMs(undefined, 0), 0);
  assert.equal(watch.waitMs({ holder: null, token: 4n, renewedAt: 'x' }, 0), 0, 'given back');
  assert.equal(watch.waitMs(row('1'), 10), LEASE_MS + GRACE_MS);
  assert.equal(watch.waitMs(row('1'), 1_010), LEASE_MS + GRACE_MS - 1_000);
  assert.equal(watch.waitMs(row('2'), 2_000), LEASE_MS + GRACE_MS, 'renewed');
  assert.equal(watch.waitMs({ ...row('2'), token: 2n }, 3_000), LEASE_MS + GRACE_MS, 'taken by another');
  assert.equal(watch.waitMs({ ...row('2'), token: 2n }, 3_000 + LEASE_MS + GRACE_MS), 0);
});

const steps = fc.record({
  clocks: fc.array(fc.integer({ min: -1e9, max: 1e9 }), { minLength: 3, maxLength: 3 }),
  events: fc.array(
    fc.record({
      who: fc.nat(2),
      /** How long before it acts again; a long one is a process that was stopped. */
      restMs: fc.oneof(
        { weight: 6, arbitrary: fc.integer({ min: 1, max: 800 }) },
        { weight: 1, arbitrary: fc.integer({ min: 1, max: 12_000 }) },
      ),
      /** To the database, and back. */
      thereMs: fc.oneof({ weight: 6, arbitrary: fc.nat(10) }, { weight: 1, arbitrary: fc.nat(9_000) }),
      backMs: fc.oneof({ weight: 6, arbitrary: fc.nat(10) }, { weight: 1, arbitrary: fc.nat(9_000) }),
      /** Neither, or only one of them, arrives. */
      lost: fc.oneof(
        { weight: 8, arbitrary: fc.constant('none' as const) },
        { weight: 1, arbitrary: fc.constantFrom('question' as const, 'answer' as const) },
      ),
    }),
    { minLength: 200, maxLength: 500 },
  ),
});

test('P8 never two leases hold at one moment, whatever the clocks, delays, pauses and lost answers', () => {
  let takeOvers = 0;
  fc.assert(
    fc.property(steps, (world) => {
      const { overlaps, leases } = simulate(world);
      takeOvers += leases;
      assert.deepEqual(overlaps, []);
    }),
    { numRuns: 300 },
  );
  assert.ok(takeOvers > 600, `only ${takeOvers} leases: the worlds are too quiet`);
});

test('P8 a lease that nobody renews is taken within its time, the grace, one look and two ways to the database', () => {
  const lookMs = 250;
  fc.assert(
    fc.property(fc.nat(50), fc.nat(50), fc.nat(lookMs), (thereMs, backMs, offset) => {
      const watch = new LeaseWatch();
      const seen = row('1');
      // The last renewal is done at 0; the first look after it starts at some moment within its interval.
      let nowMs = offset + thereMs + backMs;
      let waitMs = watch.waitMs(seen, nowMs);
      while (waitMs > 0) {
        nowMs += Math.min(lookMs, waitMs) + thereMs + backMs;
        waitMs = watch.waitMs(seen, nowMs);
      }
      const takenMs = nowMs + thereMs + backMs;
      assert.ok(takenMs <= LEASE_MS + GRACE_MS + lookMs + 4 * (thereMs + backMs) + lookMs, `${takenMs} ms`);
      assert.ok(nowMs >= LEASE_MS + GRACE_MS);
    }),
  );
});
