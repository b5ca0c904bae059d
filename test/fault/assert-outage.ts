import assert from 'node:assert/strict';
import { assertDelivered } from '../support/judge.ts';
import { growth, memoryRange, type OutageResult } from './outage.ts';
import { MAX_IN_FLIGHT_EVENTS } from './outages.ts';

/** The window is full, and the collector has seen a full heap, after so long. */
const SETTLED_MS = 4_000;
const MEMORY_TOLERANCE_BYTES = 24 * 1_048_576;
/** A scrape on a busy machine is late by a little, at both ends. */
const REAL_TIME = { least: 0.8, most: 1.25 };

/** Throws unless every promise was kept; returns the figures in a line. */
export function assertBrokerOutage(result: OutageResult): string {
  // What was with the broker when it was killed.
  assertDelivered(result.verdict, { maxDuplicates: MAX_IN_FLIGHT_EVENTS });
  assertLag(result, 1_000);
  const range = memoryRange(result.samples, SETTLED_MS);
  assert.ok(range < MEMORY_TOLERANCE_BYTES, `the resident set moved by ${range} bytes`);
  const most = Math.max(...result.samples.map(({ inFlightEvents }) => inFlightEvents));
  assert.ok(most <= 2 * MAX_IN_FLIGHT_EVENTS, `${most} events in flight`);
  assertHealthy(result);
  return figures(result);
}

/** The database may be silent for three seconds before that counts as lag. */
export function assertDatabaseOutage(result: OutageResult, crashes: number): string {
  assertDelivered(result.verdict, { maxDuplicates: crashes * MAX_IN_FLIGHT_EVENTS });
  assertLag(result, 3_500);
  assertHealthy(result);
  return figures(result);
}

function assertLag({ samples, lagWhenDrained }: OutageResult, fromMs: number): void {
  const rate = growth(samples, fromMs);
  assert.ok(
    rate > REAL_TIME.least && rate < REAL_TIME.most,
    `the lag grew by ${rate} s a second: ${samples.map(({ lagSeconds }) => lagSeconds.toFixed(2)).join(' ')}`,
  );
  const last = samples.at(-1);
  // The oldest event waits since a moment before the outage at the latest, a probe's interval after it.
  if (last) assert.ok(last.lagSeconds > last.atMs / 1000 - 2, `${last.lagSeconds} s at ${last.atMs} ms`);
  assert.ok(samples.every(({ lagSeconds }) => lagSeconds >= 0));
  assert.equal(lagWhenDrained, 0);
}

/** In a sidecar an unready container takes the user's service out of its load balancer. */
function assertHealthy({ samples, exit }: OutageResult): void {
  assert.ok(samples.every(({ live, ready }) => live && ready));
  assert.deepEqual(exit, { code: 0, signal: null });
}

function figures({ verdict, samples, recoveredMs, takenBack }: OutageResult): string {
  const lags = samples.map(({ lagSeconds }) => lagSeconds);
  const sizes = samples.map(({ rssBytes }) => rssBytes / 1_048_576);
  return (
    `${verdict.committed} committed, ${takenBack} taken back, ${verdict.duplicates} duplicates; lag up to ${Math.max(...lags).toFixed(1)} s, ` +
    `${(recoveredMs / 1000).toFixed(1)} s to catch up; resident set ${Math.min(...sizes).toFixed(0)} to ${Math.max(...sizes).toFixed(0)} MiB`
  );
}
