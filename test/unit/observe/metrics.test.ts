import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { Distribution } from '../../../src/observe/distribution.ts';
import { createMetrics } from '../../../src/observe/metrics.ts';

/** The contract with dashboards and alerts: metric → type and labels. */
const CONTRACT: Readonly<Record<string, string>> = {
  outbox_relay_lag_seconds: 'gauge',
  outbox_relay_lag_bytes: 'gauge',
  outbox_relay_pending_events: 'gauge',
  outbox_relay_in_flight_events: 'gauge',
  outbox_relay_in_flight_bytes: 'gauge',
  outbox_relay_events_published_total: 'counter',
  outbox_relay_publish_failures_total: 'counter',
  outbox_relay_events_parked_total: 'counter',
  outbox_relay_dead_letters: 'gauge',
  outbox_relay_orphans_total: 'counter',
  outbox_relay_duplicates_skipped_total: 'counter',
  outbox_relay_publish_duration_seconds: 'histogram',
  outbox_relay_delivery_duration_seconds: 'histogram',
  outbox_relay_mode: 'gauge',
  outbox_relay_leader: 'gauge',
  outbox_relay_mode_changes_total: 'counter',
  outbox_relay_slot_retained_bytes: 'gauge',
  outbox_relay_slot_wal_status: 'gauge',
  outbox_relay_last_durable_timestamp_seconds: 'gauge',
  outbox_relay_build_info: 'gauge',
};

/** `name{labels}` → value. Fails on a line that is neither sample nor comment, and on a sample that comes twice. */
function samples(text: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const line of text.split('\n').filter((each) => each !== '' && !each.startsWith('#'))) {
    const match = /^(\w+(?:\{[^}]*\})?) (\S+)$/.exec(line);
    assert.ok(match !== null, line);
    const [, name = '', value] = match;
    assert.ok(!found.has(name), `twice: ${name}`);
    found.set(name, Number(value));
  }
  return found;
}

test('all names of the contract are exposed from the start, with help', async () => {
  const text = await createMetrics({ version: '1.2.3' }).text();
  const types = Object.fromEntries(
    [...text.matchAll(/^# TYPE (outbox_relay_\w+) (\w+)$/gmu)].map(([, n, t]) => [n, t]),
  );
  assert.deepEqual(types, CONTRACT);
  for (const name of Object.keys(CONTRACT)) assert.match(text, new RegExp(`^# HELP ${name} .+\\.$`, 'm'));
  const values = samples(text);
  assert.equal(values.get('outbox_relay_build_info{version="1.2.3"}'), 1);
  assert.ok((values.get('process_resident_memory_bytes') ?? 0) > 1e6);
  assert.ok((values.get('process_cpu_seconds_total') ?? 0) > 0);
  assert.equal(text.endsWith('\n'), true);
});

test('counters add by count; a label has a bounded number of values', async () => {
  const metrics = createMetrics({ version: '0' });
  for (let i = 0; i < 1000; i++) metrics.published(`topic-${i}`, 2);
  metrics.publishFailed('timeout', 3);
  metrics.parked('too-large', 1);
  const values = samples(await metrics.text());
  const published = [...values].filter(([name]) => name.startsWith('outbox_relay_events_published_total'));
  assert.equal(published.length, 201);
  assert.equal(
    published.reduce((sum, [, value]) => sum + value, 0),
    2000,
  );
  assert.equal(values.get('outbox_relay_events_published_total{destination="other"}'), 1600);
  assert.equal(values.get('outbox_relay_publish_failures_total{code="timeout"}'), 3);
  assert.equal(values.get('outbox_relay_events_parked_total{code="too-large"}'), 1);
});

test('exactly one mode and one slot status is 1; only changes of mode count', async () => {
  const metrics = createMetrics({ version: '0' });
  metrics.setMode('standby', 'start');
  metrics.setMode('streaming', 'leader');
  metrics.setMode('streaming', 'leader');
  metrics.setSlotWalStatus('extended');
  metrics.setSlotWalStatus('reserved');
  const values = samples(await metrics.text());
  const ones = [...values].filter(
    ([name, value]) => value === 1 && /relay_(mode|slot_wal_status)\{/.test(name),
  );
  assert.deepEqual(
    ones.map(([name]) => name),
    ['outbox_relay_mode{mode="streaming"}', 'outbox_relay_slot_wal_status{status="reserved"}'],
  );
  assert.equal(
    values.get('outbox_relay_mode_changes_total{from="standby",to="streaming",reason="leader"}'),
    1,
  );
});

test('gauges that change by themselves are filled at each scrape', async () => {
  const metrics = createMetrics({ version: '0' });
  let lag = 1;
  metrics.onScrape(() => metrics.lagSeconds.set(lag++));
  assert.equal(samples(await metrics.text()).get('outbox_relay_lag_seconds'), 1);
  assert.equal(samples(await metrics.text()).get('outbox_relay_lag_seconds'), 2);
});

test('a distribution counts every observation once, in the bucket that holds it, cumulatively', () => {
  const bounds = [0.001, 0.01, 0.1, 1];
  const observation = fc.double({ min: -1, max: 3, noNaN: true });
  fc.assert(
    fc.property(fc.array(observation), (observations) => {
      const distribution = new Distribution({ name: 'd', help: 'h', bounds });
      for (const seconds of observations) distribution.observe(seconds);
      const values = samples(distribution.text());
      for (const bound of bounds) {
        const below = observations.filter((seconds) => seconds <= bound).length;
        assert.equal(values.get(`d_bucket{le="${bound}"}`), below);
      }
      assert.equal(values.get('d_bucket{le="+Inf"}'), observations.length);
      assert.equal(values.get('d_count'), observations.length);
      assert.ok((values.get('d_sum') ?? -1) >= 0);
    }),
  );
});
