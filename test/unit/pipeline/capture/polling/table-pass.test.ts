import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DatabaseError, type Client } from 'pg';
import type { Config } from '../../../../../src/config/config.ts';
import { rowBytes, type OutboxEvent } from '../../../../../src/pipeline/capture/event.ts';
import { TablePass, type TablePassOptions } from '../../../../../src/pipeline/capture/polling/table-pass.ts';
import { DEFAULT_OUTBOX } from '../../../../support/default-outbox.ts';

const MEGABYTE = 1_048_576;

function column(name: string, oid: number, fixed = false): Record<string, string> {
  return { name, oid: String(oid), fixed: String(fixed), signature: `${oid} ${name}` };
}

const SHAPE = [
  column('seq', 20, true),
  column('xid', 5069, true),
  column('id', 2950, true),
  column('aggregatetype', 19, true),
  column('aggregateid', 19, true),
  column('type', 19, true),
  column('payload', 25),
];

/** Answers the statements of a pass from a list of payload sizes; remembers what was fetched together. */
class FakeTable {
  readonly fetches: { seqs: number[]; withPayload: boolean }[] = [];
  shape: readonly Record<string, string>[] = SHAPE;
  /** Before a statement of this kind is answered. */
  before: (kind: 'page' | 'fetch') => void = () => undefined;
  private readonly sizes: readonly number[];

  constructor(sizes: readonly number[]) {
    this.sizes = sizes;
  }

  get client(): Client {
    const query = async (text: string, values: unknown[]): Promise<{ rows: readonly unknown[] }> =>
      await Promise.resolve({ rows: this.answer(text, values) });
    return { query } as unknown as Client;
  }

  private answer(text: string, values: unknown[]): readonly Record<string, string | null>[] {
    if (text.includes('with recursive')) return this.shape;
    // The end of a range: there is none beyond the last row.
    if (text.includes(' offset ')) return [];
    const isPage = text.includes(' as bytes');
    this.before(isPage ? 'page' : 'fetch');
    const quoted = /"(\w+)"/g;
    for (const [, name] of text.slice(0, text.indexOf(' from ')).matchAll(quoted))
      if (!this.shape.some((each) => each['name'] === name)) throw failure('42703');
    const known = values.at(-1) as string[];
    const altered = known.join() === this.shape.map(({ signature }) => signature).join() ? null : 'true';
    const rows = isPage ? this.page(values) : this.fetch(text, values[0] as number[]);
    return rows.map((row) => Object.assign(row, { relay_altered: altered }));
  }

  private fetch(text: string, seqs: number[]): Record<string, string>[] {
    const withPayload = !text.includes('case when octet_length');
    this.fetches.push({ seqs, withPayload });
    return seqs.map((seq) => {
      const row = { seq: String(seq), xid: '7', id: `id-${seq}`, relay_committed_ms: '5' };
      return withPayload ? Object.assign(row, { payload: 'p'.repeat(this.sizes[seq - 1] ?? 0) }) : row;
    });
  }

  private page([after, limit, seqs]: unknown[]): Record<string, string>[] {
    return this.sizes
      .map((bytes, i) => ({ seq: i + 1, bytes }))
      .filter(({ seq }) => seq > (after as number))
      .filter(({ seq }) => !isNumbers(seqs) || seqs.includes(seq))
      .slice(0, limit as number)
      .map(({ seq, bytes }) => ({ seq: String(seq), bytes: String(bytes) }));
  }
}

function isNumbers(values: unknown): values is number[] {
  return Array.isArray(values) && typeof values[0] === 'number';
}

function failure(code: string): DatabaseError {
  return Object.assign(new DatabaseError('refused', 1, 'error'), { code });
}

async function pass(
  table: FakeTable,
  part: Partial<TablePassOptions> = {},
  maxEventBytes = 16 * MEGABYTE,
): Promise<OutboxEvent[]> {
  const config = {
    outbox: DEFAULT_OUTBOX,
    broker: { kind: 'stdout' },
    route: { topic: 'events', key: '${aggregateid}' },
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

  describe('the table is altered', () => {
    const TENANT = [...SHAPE, column('tenant', 25)];
    const rows = Array.from({ length: 6 }, () => 2 * MEGABYTE);

    for (const kind of ['page', 'fetch'] as const)
      it(`P1 P2 before a ${kind}: no row is handed on by the old columns, and each once`, async () => {
        const table = new FakeTable(rows);
        let count = 0;
        table.before = (now) => {
          if (now === kind && ++count === 2) table.shape = TENANT;
        };
        const events = await pass(table);
        assert.deepEqual(seqsOf(events), [1, 2, 3, 4, 5, 6]);
        const withTenant = events.map(({ row }) => row.columns.includes('tenant'));
        // Two rows a fetch; all of them are in the first page.
        const before = kind === 'page' ? 6 : 2;
        assert.deepEqual(withTenant, [...Array(before).fill(false), ...Array(6 - before).fill(true)]);
      });

    it('P7 rows are measured by a new column before they are fetched with it', async () => {
      const table = new FakeTable(rows);
      const order: string[] = [];
      table.before = (kind) => {
        order.push(kind);
        if (order.length === 3) table.shape = TENANT;
      };
      await pass(table);
      assert.deepEqual(order, ['page', 'fetch', 'fetch', 'page', 'fetch', 'fetch', 'page']);
    });

    it('P1 a column that nobody needs is dropped: the statement is repeated without it', async () => {
      for (const kind of ['page', 'fetch'] as const) {
        const table = new FakeTable(rows);
        table.shape = TENANT;
        table.before = (now) => {
          if (now === kind && table.fetches.length > 0) table.shape = SHAPE;
        };
        assert.deepEqual(seqsOf(await pass(table)), [1, 2, 3, 4, 5, 6]);
      }
    });

    for (const code of ['42703', '42883', '57014'])
      it(`what the server refuses for the columns that there are ends the pass: ${code}`, async () => {
        for (const kind of ['page', 'fetch'] as const) {
          const table = new FakeTable(rows);
          let count = 0;
          table.before = (now) => {
            if (now !== kind) return;
            count++;
            throw failure(code);
          };
          await assert.rejects(pass(table), { code });
          assert.equal(count, 1, 'nothing has changed, so nothing is to be gained');
        }
      });

    it('whatever is altered again and again, it comes to an end', async () => {
      const table = new FakeTable(rows);
      let count = 0;
      table.before = () => {
        if (++count < 20) table.shape = [...SHAPE, column(`column_${count}`, 25)];
      };
      assert.deepEqual(seqsOf(await pass(table)), [1, 2, 3, 4, 5, 6]);
    });
  });

  it('ends between fetches when it is aborted', async () => {
    const stop = new AbortController();
    const config = {
      outbox: { ...DEFAULT_OUTBOX, schema: 's', table: 't' },
      broker: { kind: 'stdout' },
      route: { topic: 'events', key: '${aggregateid}' },
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
