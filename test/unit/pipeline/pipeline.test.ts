import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { OutboxEvent } from '../../../src/pipeline/capture/event.ts';
import type { Batch, Source } from '../../../src/pipeline/capture/source.ts';
import { Pipeline, type PipelineOptions } from '../../../src/pipeline/pipeline.ts';
import { Settlement } from '../../../src/pipeline/settle/settlement.ts';
import type { Settler } from '../../../src/pipeline/settle/settler.ts';
import { eventOf, messageOf, transactionOf } from './builders.ts';
import { ScriptedPublisher } from './publish/scripted-publisher.ts';

function batchOf(seqs: readonly number[]): Batch {
  const transactions = seqs.map((seq) => transactionOf({ xid: seq, endLsn: BigInt(seq) }));
  return { transactions, events: transactions.map((t) => eventOf(Number(t.endLsn), t)), heardLsn: 0n };
}

/** Ends after its batches, or stays open until aborted. */
class FixedSource implements Source {
  pulled = 0;
  private readonly all: readonly Batch[];
  private readonly staysOpen: boolean;

  constructor(all: readonly Batch[], staysOpen = false) {
    this.all = all;
    this.staysOpen = staysOpen;
  }

  async *batches(signal: AbortSignal): AsyncGenerator<Batch> {
    for (const batch of this.all) {
      if (signal.aborted) return;
      this.pulled++;
      yield batch;
    }
    if (!this.staysOpen || signal.aborted) return;
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  }

  acknowledge(): void {
    // Not looked at here.
  }
}

function setUp(
  source: Source,
  part: Partial<PipelineOptions> = {},
): {
  pipeline: Pipeline;
  publisher: ScriptedPublisher;
  settled: number[];
  parked: string[];
  skipped: number[];
} {
  const publisher = new ScriptedPublisher();
  const settled: number[] = [];
  const parked: string[] = [];
  const skipped: number[] = [];
  const settler = {
    add: (items: readonly { event: OutboxEvent }[]) => settled.push(...items.map(({ event }) => event.seq)),
  } as unknown as Settler;
  const pipeline = new Pipeline({
    source,
    publisher,
    address: (event) => messageOf(event.seq, { event, key: String(event.seq % 3) }),
    settlement: new Settlement({ position: 0n, before: [], beforeUntil: 0n }),
    books: settler,
    mayStart: () => true,
    window: { maxEvents: 4, maxBytes: 1e9 },
    policy: { maxAttempts: 2, topicGraceMs: 0, maxStuckEvents: 100, retryDelayMs: () => 1 },
    onDurable: () => undefined,
    onParked: ({ parked: why }) => parked.push(why?.code ?? ''),
    onSkipped: (count) => skipped.push(count),
    onFailure: () => undefined,
    ...part,
  });
  return { pipeline, publisher, settled, parked, skipped };
}

async function turns(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}

describe('Pipeline', () => {
  it('P1 reads to the end of its source and waits until all of it is durable', async () => {
    const { pipeline, publisher, settled } = setUp(new FixedSource([batchOf([1, 2]), batchOf([3])]));
    let ended = false;
    const running = pipeline.run(new AbortController().signal).then(() => (ended = true));
    await turns();
    assert.equal(ended, false);
    publisher.answerAtOnce = () => ({ kind: 'durable' });
    publisher.answerAll();
    await running;
    assert.deepEqual(
      settled.toSorted((a, b) => a - b),
      [1, 2, 3],
    );
  });

  it('P7 stops reading at the limit of the window, until rows are removed', async () => {
    const batches = [batchOf([1, 2]), batchOf([3, 4]), batchOf([5, 6])];
    const source = new FixedSource(batches, true);
    const { pipeline, publisher } = setUp(source);
    const stop = new AbortController();
    const running = pipeline.run(stop.signal);
    await turns();
    assert.equal(source.pulled, 2);
    publisher.answerAll();
    await turns();
    assert.equal(source.pulled, 2, 'durable alone frees nothing: the rows are still held');
    pipeline.release((batches[0] as Batch).events.map((event) => ({ event })));
    await turns();
    assert.equal(source.pulled, 3);
    stop.abort();
    await running;
  });

  it('P1 reading goes on after more known events than are remembered, with nothing in flight', async () => {
    const known = Array.from({ length: 100 }, (_, i) => i + 1);
    const source = new FixedSource([batchOf(known), batchOf([101])], true);
    const before = [{ seqFrom: 1, seqTo: 100, xidFrom: 0, xidTo: 1_000 }];
    const settlement = new Settlement({ position: 0n, before, beforeUntil: 1_000n });
    let asked = 0;
    const settler = { add: () => asked++ } as unknown as Settler;
    const limits = { maxEvents: 1, maxBytes: 1e9 };
    const { pipeline, skipped } = setUp(source, { settlement, books: settler, window: limits });
    const stop = new AbortController();
    const running = pipeline.run(stop.signal);
    await turns();
    assert.deepEqual(skipped, [100]);
    assert.ok(asked > 0, 'the settler is told that there is something to note');
    // As it does: it notes, and what it wrote is released.
    settlement.nextWrite(10);
    pipeline.release([]);
    await turns();
    assert.equal(source.pulled, 2);
    stop.abort();
    await running;
  });

  it('P4 P7 reading waits while the rows of a window of delivered events can not be seen yet', async () => {
    const source = new FixedSource([batchOf([1]), batchOf([2])], true);
    const unseen = [11, 12, 13, 14].map((seq) => ({ seq, xid: 7 }));
    const settlement = new Settlement({ position: 0n, before: [], beforeUntil: 0n, unseen });
    const { pipeline, publisher } = setUp(source, { settlement });
    publisher.answerAtOnce = () => ({ kind: 'durable' });
    const stop = new AbortController();
    const running = pipeline.run(stop.signal);
    await turns();
    assert.equal(source.pulled, 1);
    const write = settlement.nextWrite(10);
    settlement.committed(write, { removed: 1, snapshot: { xmin: 8, xmax: 8, running: [] } });
    pipeline.release(write.settled);
    await turns();
    assert.equal(source.pulled, 2);
    stop.abort();
    await running;
  });

  it('P6 a stop does not wait for a broker that is away, also when the source has come to its end', async () => {
    const { pipeline, publisher } = setUp(new FixedSource([batchOf([1, 2])]));
    publisher.roomLeft = 0;
    const stop = new AbortController();
    let ended = false;
    const running = pipeline.run(stop.signal).then(() => (ended = true));
    await turns();
    assert.equal(ended, false);
    stop.abort();
    await turns();
    assert.equal(ended, true);
    await running;
    assert.equal(await pipeline.stop(1_000), 0);
  });

  it('P1 a stop ends reading that waits at a full window', async () => {
    const { pipeline } = setUp(new FixedSource([batchOf([1, 2, 3, 4]), batchOf([5])], true));
    const stop = new AbortController();
    const running = pipeline.run(stop.signal);
    await turns();
    stop.abort();
    await running;
  });

  it('P10 an event without an address is parked, and the others flow', async () => {
    const { pipeline, publisher, parked, settled } = setUp(new FixedSource([batchOf([1, 2, 3])]), {
      address: (event) =>
        event.seq === 2
          ? { event, code: 'address-incomplete', reason: 'column missing' }
          : messageOf(event.seq, { event }),
    });
    publisher.answerAtOnce = () => ({ kind: 'durable' });
    await pipeline.run(new AbortController().signal);
    assert.deepEqual(parked, ['address-incomplete']);
    assert.deepEqual(
      settled.toSorted((a, b) => a - b),
      [1, 2, 3],
    );
  });

  it('P4 what the progress row knows is skipped and counted, not sent', async () => {
    const batch = batchOf([1, 2, 3]);
    const before = [{ seqFrom: 2, seqTo: 3, xidFrom: 2, xidTo: 3 }];
    const { pipeline, publisher, skipped } = setUp(new FixedSource([batch]), {
      settlement: new Settlement({ position: 0n, before, beforeUntil: 3n }),
    });
    publisher.answerAtOnce = () => ({ kind: 'durable' });
    await pipeline.run(new AbortController().signal);
    assert.deepEqual([publisher.calls, skipped], [[[1]], [2]]);
    assert.equal(pipeline.window.events, 1);
  });

  it('P4 a stop gives up at its deadline and tells how many answers are missing', async () => {
    const { pipeline } = setUp(new FixedSource([batchOf([1, 2])], true));
    const stop = new AbortController();
    const running = pipeline.run(stop.signal);
    await turns();
    stop.abort();
    await running;
    assert.equal(await pipeline.stop(5), 2);
  });

  it('orphans that arrive during the drain are left in the table', async () => {
    const { pipeline, publisher } = setUp(new FixedSource([]));
    await pipeline.stop(1_000);
    pipeline.acceptOrphans(batchOf([9]).events);
    assert.equal(await pipeline.stop(60_000), 0);
    assert.deepEqual(publisher.calls, []);
  });
});
