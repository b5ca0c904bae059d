import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadConfig } from '../../../../../src/config/load.ts';
import { explainInvalidation } from '../../../../../src/pipeline/capture/streaming/invalidation.ts';
import { nextLookMs, watchRetention } from '../../../../../src/pipeline/capture/streaming/retention.ts';
import type { Slot } from '../../../../../src/pipeline/capture/streaming/slot.ts';

const MIB = 1024 ** 2;

describe('nextLookMs', () => {
  it('P6 looks sooner the nearer the limit is, so that a fast writer gets no segment further', () => {
    assert.equal(nextLookMs(0, 4096 * MIB), 2_000);
    assert.ok(nextLookMs(180 * MIB, 200 * MIB) < 250);
    assert.equal(nextLookMs(200 * MIB, 200 * MIB), 100);
    assert.equal(nextLookMs(900 * MIB, 200 * MIB), 100, 'also when the drop has failed');
  });
});

describe('The guard of the slot', () => {
  it('P6 says so when it can not look', async () => {
    const over = new AbortController();
    const broken: unknown[] = [];
    await watchRetention({
      config: loadConfig({ DATABASE_URL: 'postgres://relay@127.0.0.1:1/shop', BROKER: 'stdout' }),
      onTooMuch: () => Promise.reject(new Error('it never looked')),
      onGuard: (error) => {
        broken.push(error);
        over.abort();
      },
      signal: over.signal,
    });
    assert.deepEqual(
      broken.map((error) => (error as NodeJS.ErrnoException).code),
      ['ECONNREFUSED'],
    );
  });
});

describe('explainInvalidation', () => {
  const slot: Slot = {
    plugin: 'pgoutput',
    slotType: 'logical',
    database: 'shop',
    activePid: undefined,
    confirmedLsn: 100n,
    walStatus: 'lost',
    invalidationReason: undefined,
    failover: undefined,
    retainedBytes: 0,
  };

  it('says what to change; before version 17 a slot is only lost with its log', () => {
    assert.equal(explainInvalidation({ ...slot, walStatus: 'unreserved' }), undefined);
    assert.match(explainInvalidation(slot)?.advice ?? '', /max_slot_wal_keep_size/);
    const idle = explainInvalidation({ ...slot, invalidationReason: 'idle_timeout' });
    assert.match(idle?.advice ?? '', /idle_replication_slot_timeout/);
    assert.match(
      explainInvalidation({ ...slot, invalidationReason: 'new_cause' })?.message ?? '',
      /new_cause/,
    );
  });
});
