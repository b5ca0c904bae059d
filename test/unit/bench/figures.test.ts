import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertComplete, type Arrival } from '../../bench/broker.ts';
import { assertRate } from '../../bench/latency.ts';
import { judge } from '../../bench/peers/kill-cost.ts';
import { toTenths, type Sample } from '../../bench/tenths.ts';

const arrival = (n: number, atMs = 0, key = 'k'): Arrival => ({ key, n, atMs, insertedAtMs: 0 });

const sample = (atMs: number, delivered: number): Sample => ({
  atMs,
  delivered,
  rssBytes: atMs * 1e4,
  relay: atMs / 2000,
  walsender: 0,
  postgres: 0,
  broker: 0,
});

test('a run with a gap, a duplicate or an inversion has no speed', () => {
  assertComplete([arrival(1), arrival(2)], 2);
  assert.throws(() => assertComplete([arrival(1)], 2), /2 committed, 1 arrived/);
  assert.throws(() => assertComplete([arrival(1), arrival(1)], 1), /came twice/);
  assert.throws(() => assertComplete([arrival(2), arrival(1)], 2), /event 1 of k came after 2/);
  assertComplete([arrival(2, 0, 'a'), arrival(1, 0, 'b')], 2);
});

/** Times, so many milliseconds apart. */
const every = (ms: number): number[] => Array.from({ length: 101 }, (_, index) => index * ms);

test('delays of writers that fell behind are none of an open loop', () => {
  assertRate(every(10), 100);
  assertRate(every(10.2), 100);
  assert.throws(() => assertRate(every(11), 100), /91 events a second were written instead of 100/);
  assert.throws(() => assertRate([], 100), /instead of 100/);
});

test('what a kill costs: duplicates count for the kill before them, first deliveries alone for the order', () => {
  const arrivals = [
    arrival(1),
    arrival(2),
    arrival(1, 150),
    arrival(2, 250),
    arrival(5, 260),
    arrival(4, 270),
  ];
  assert.deepEqual(judge(arrivals, 5, [100, 200]), {
    duplicatesPerKill: 1,
    maxDuplicates: 1,
    lost: 1,
    inverted: 1,
  });
});

test('tenths begin at the first event and end between samples; a counter at half speed in the last is seen', () => {
  const tenths = toTenths(
    [
      sample(0, 0),
      sample(400, 0),
      sample(500, 0),
      sample(1000, 1),
      sample(10_000, 901),
      sample(12_000, 1001),
    ],
    1001,
  );
  assert.equal(tenths.length, 10);
  assert.equal(tenths[0]?.eventsPerSecond, 100);
  assert.equal(tenths[0]?.cpu.relay, 0.5);
  assert.equal(tenths[9]?.eventsPerSecond, 50);
  assert.equal(tenths[9]?.peakRssMb, 120);
});
