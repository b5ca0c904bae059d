import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  endedPartitions,
  partitionKey,
  type Partition,
} from '../../../../src/pipeline/settle/partition-range.ts';

const at = (text: string): number => Date.parse(text);

function partitions(...bounds: string[]): Partition[] {
  return bounds.map((bound, index) => ({ oid: `${index}`, name: `p${index}`, bound, detachPending: false }));
}

function ended(key: 'time' | 'seq', now: number, ...bounds: string[]): string[] {
  const time = { key, databaseMs: now, lastSeq: now };
  return endedPartitions(partitions(...bounds), time).map(({ partition }) => partition.name);
}

describe('partitions whose range has ended', () => {
  it('by a time: those whose upper end has passed, the oldest first', () => {
    const bounds = [
      `FOR VALUES FROM ('2026-03-01 00:00:00+00') TO ('2026-04-01 00:00:00+00')`,
      `FOR VALUES FROM ('2026-01-01 00:00:00+00') TO ('2026-02-01 00:00:00+00')`,
      `FOR VALUES FROM ('2026-02-01 00:00:00+00') TO ('2026-03-01 00:00:00+00')`,
    ];
    assert.deepEqual(ended('time', at('2026-03-15T00:00:00Z'), ...bounds), ['p1', 'p2']);
    assert.deepEqual(ended('time', at('2026-02-28T23:59:59Z'), ...bounds), ['p1']);
    const [oldest] = endedPartitions(partitions(...bounds), {
      key: 'time',
      databaseMs: at('2026-03-15T00:00:00Z'),
      lastSeq: 0,
    });
    assert.equal(oldest?.endedMs, at('2026-02-01T00:00:00Z'));
  });

  it('reads dates, times without zone, fractions, and begins without end', () => {
    const last = `FOR VALUES FROM ('2030-01-01') TO (MAXVALUE)`;
    // Without a zone it is local time somewhere: so many hours later it is over everywhere.
    for (const bound of [
      `FOR VALUES FROM (MINVALUE) TO ('2026-01-01')`,
      `FOR VALUES FROM ('2025-01-01 00:00:00') TO ('2026-01-01 00:00:00')`,
    ]) {
      assert.deepEqual(ended('time', at('2026-01-01T14:00:00Z'), bound, last), ['p0'], bound);
      assert.deepEqual(ended('time', at('2026-01-01T13:59:59Z'), bound, last), [], bound);
    }
    const zoned = `FOR VALUES FROM ('2025-01-01 00:00:00+00') TO ('2025-12-31 23:59:59.999999+00')`;
    assert.deepEqual(ended('time', at('2026-01-01T00:00:00Z'), zoned, last), ['p0']);
    assert.deepEqual(ended('time', at('2025-12-31T23:59:58Z'), zoned, last), []);
  });

  it('by seq: those that the sequence has passed', () => {
    const bounds = [
      `FOR VALUES FROM ('0') TO ('1000')`,
      `FOR VALUES FROM ('1000') TO ('2000')`,
      `FOR VALUES FROM ('2000') TO ('3000')`,
    ];
    assert.deepEqual(ended('seq', 999, ...bounds), []);
    assert.deepEqual(ended('seq', 1000, ...bounds), ['p0']);
    assert.deepEqual(ended('seq', 2500, ...bounds), ['p0', 'p1']);
  });

  it('never the last one, nor one whose end is not understood', () => {
    const past = `FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')`;
    const now = at('2026-01-01T00:00:00Z');
    assert.deepEqual(ended('time', now, past), []);
    for (const odd of [
      'DEFAULT',
      `FOR VALUES FROM ('2021-01-01') TO (MAXVALUE)`,
      `FOR VALUES FROM ('2021-01-01') TO ('infinity')`,
      `FOR VALUES FROM ('0044-03-15 BC') TO ('0043-03-15 BC')`,
      `FOR VALUES IN ('2020-01-01')`,
      `FOR VALUES WITH (modulus 3, remainder 0)`,
      `FOR VALUES FROM ('2020-01-01', 1) TO ('2021-01-01', 2)`,
    ]) {
      assert.deepEqual(ended('time', now, past, odd, odd), ['p0'], odd);
      assert.deepEqual(ended('seq', 10 ** 15, odd, odd), [], odd);
    }
  });

  it('a key tells the end only when it is one time, or seq itself', () => {
    const range = { strategy: 'r', columns: 1, keyIsSeq: false };
    assert.equal(partitionKey({ ...range, keyType: 'timestamp with time zone' }), 'time');
    assert.equal(partitionKey({ ...range, keyType: 'date' }), 'time');
    assert.equal(partitionKey({ ...range, keyType: 'bigint', keyIsSeq: true }), 'seq');
    assert.equal(partitionKey({ ...range, keyType: 'bigint' }), undefined);
    assert.equal(partitionKey({ ...range, keyType: 'uuid' }), undefined);
    assert.equal(partitionKey({ ...range, strategy: 'l', keyType: 'date' }), undefined);
    assert.equal(partitionKey({ ...range, columns: 2, keyType: 'date' }), undefined);
  });
});
