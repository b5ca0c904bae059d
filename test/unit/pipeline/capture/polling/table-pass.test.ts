import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Client } from 'pg';
import type { Config } from '../../../../../src/config/config.ts';
import { rowBytes, type OutboxEvent } from '../../../../../src/pipeline/capture/event.ts';
import { TablePass, type TablePassOptions } from '../../../../../src/pipeline/capture/polling/table-pass.ts';
import { DEFAULT_OUTBOX } from '../../../../support/default-outbox.ts';

const MEGABYTE = 1_048_576;
const SHAPE = [
  { name: 'seq', oid: '20', fixed: 'true' },
  { name: 'xid', oid: '5069', fixed: 'true' },
  { name: 'id', oid: '2950', fixed: 'true' },
  { name: 'payload', oid: '25', fixed: 'false' },
];

/** Answers the three statements of a pass from a list of payload sizes; remembers what was fetched together. */
class FakeTable {
  readonly fetches: { seqs: number[]; withPayload: boolean }[] = [];
  private readonly sizes: readonly number[];

  constructor(sizes: readonly number[]) {
    this.sizes = sizes;
  }

  get client(): Client {
    return {
      query: (text: string, values: unknown[]) => Promise.resolve({ rows: this.answer(text, values) }),
    } as unknown as Client;
  }

  private answer(text: string, values: unknown[]): Record<string, string>[] {
    if (text.includes('pg_attribute')) return SHAPE;
    if (text.includes(' as bytes')) return this.page(values[0] as number, values[1] as number);
    // The end of a range: there is none beyond the last row.
    if (text.includes(' offset ')) return [];
    const seqs = values[0] as number[];
    const withPayload = !text.includes('case when');
    this.fetches.push({ seqs, withPayload });
    return seqs.map((seq) => {
      const row = { seq: String(seq), xid: '7', id: `id-${seq}`, relay_committed_ms: '5' };
      return withPayload ? Object.assign(row, { payload: 'p'.repeat(this.sizes[seq - 1] ?? 0) }) : row;
    });
  }

  private page(after: number, limit: number): Record<string, string>[] {
    return this.sizes
      .map((bytes, i) => ({ seq: i + 1, bytes }))
      .filter(({ seq }) => seq > after)
      .slice(0, limit)
      .map(({ seq, bytes }) => ({ seq: String(seq), bytes: String(bytes) }));
  }
}

async function pass(
  table: FakeTable,
  part: Partial<TablePassOptions> = {},
  maxEventBytes = 16 * MEGABYTE,
): Promise<OutboxEvent[]> {
  const config = {
    outbox: DEFAULT_OUTBOX,
    cleanup: 'delete',
    maxEventBytes,
  } as unknown as Config;
  const options = {
    config,
    client: table.client,
    rows: { snapshot: '1:1:', horizon: undefined },
    afterSeq: 0,
    ...part,
  };
  const events: OutboxEvent[] = [];
  for await (const batch of new TablePass(options).batches(new AbortController().signal)) {
    assert.deepEqual(
      batch.transactions,
      batch.events.map(({ transaction }) => transaction),
    );
    events.push(...batch.events);
  }
  return events;
}

function seqsOf(events: readonly OutboxEvent[]): number[] {
  return events.map(({ seq }) => seq);
}

describe('TablePass', () => {
  it('P1 P3 brings every row once, by seq, over pages and fetches', async () => {
    const events = await pass(new FakeTable(Array.from({ length: 4_500 }, () => 10)));
    assert.deepEqual(
      seqsOf(events),
      Array.from({ length: 4_500 }, (_, i) => i + 1),
    );
    assert.deepEqual(events[41]?.transaction, {
      xid: undefined,
      committedAtMs: 5,
      endLsn: 42n,
      outstanding: 1,
    });
  });

  it('P1 goes on behind what was delivered before', async () => {
    assert.deepEqual(seqsOf(await pass(new FakeTable([1, 1, 1, 1]), { afterSeq: 2 })), [3, 4]);
  });

  it('P7 payloads are fetched in small pieces; a large one alone', async () => {
    const table = new FakeTable([3, 2, 2, 10, 1, 1].map((size) => size * MEGABYTE));
    await pass(table);
    assert.deepEqual(
      table.fetches.map(({ seqs }) => seqs),
      [[1], [2, 3], [4], [5, 6]],
    );
  });

  for (const sizes of [
    [10, 5_000, 10, 10],
    [5_000, 10, 10, 10],
    [10, 10, 10, 5_000],
    [5_000, 5_000, 10, 5_000],
  ]) {
    it(`P10 P7 a payload over the limit stays in the table, its neighbours do not: ${sizes.join(', ')}`, async () => {
      const table = new FakeTable(sizes);
      const events = await pass(table, {}, 1_000);
      assert.deepEqual(seqsOf(events), [1, 2, 3, 4]);
      for (const [i, event] of events.entries()) {
        const size = sizes[i] as number;
        assert.equal(event.leftInTableBytes !== undefined, size > 1_000, `event ${event.seq}`);
        assert.equal(event.row.text('payload'), size > 1_000 ? null : 'p'.repeat(size));
        assert.equal(rowBytes(event) > 1_000, size > 1_000);
        assert.ok(event.sizeBytes < 1_000, 'bytes that are here');
      }
    });
  }

  it('ends between fetches when it is aborted', async () => {
    const stop = new AbortController();
    const config = {
      outbox: { ...DEFAULT_OUTBOX, schema: 's', table: 't' },
      cleanup: 'mark',
      maxEventBytes: 1e9,
    } as unknown as Config;
    const table = new FakeTable([5, 5, 5].map((size) => size * MEGABYTE));
    const source = new TablePass({
      config,
      client: table.client,
      rows: { snapshot: '1:1:', horizon: undefined },
      afterSeq: 0,
    });
    for await (const _ of source.batches(stop.signal)) stop.abort();
    assert.equal(table.fetches.length, 1);
  });
});
