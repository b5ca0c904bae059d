import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import type { OutboxEvent, Transaction } from '../../../../src/pipeline/capture/event.ts';
import { containsEvent, type Identity, type Run } from '../../../../src/pipeline/settle/settled-runs.ts';
import { byNumber } from '../../../../src/pipeline/settle/removal.ts';
import {
  Settlement,
  unseenOf,
  type Write,
  type Written,
} from '../../../../src/pipeline/settle/settlement.ts';
import type { Snapshot } from '../../../../src/postgres/snapshot.ts';
import { eventOf, transactionOf } from '../builders.ts';

export const START = 100n;

/** Every row was there, and was removed. */
export const ALL: Written = { removed: Infinity, snapshot: { xmin: 1, xmax: 1e9, running: [] } };

interface Committed {
  readonly endLsn: bigint;
  readonly events: readonly Identity[];
}

interface ProgressRow {
  readonly position: bigint;
  readonly beyond: readonly Run[];
}

/** What PostgreSQL has: transactions in commit order, numbers drawn in another order. */
export const log: fc.Arbitrary<Committed[]> = fc
  .array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 40, size: 'max' })
  .chain((sizes) => {
    const total = sizes.reduce((sum, size) => sum + size, 0);
    const numbers = Array.from({ length: total }, (_, i) => i + 1);
    return fc.shuffledSubarray(numbers, { minLength: total, maxLength: total }).map((seqs) => {
      let at = 0;
      return sizes.map((size, i) => ({
        endLsn: START + BigInt((i + 1) * 10),
        events: seqs.slice(at, (at += size)).map((seq) => ({ seq, xid: 500 + i })),
      }));
    });
  });

type Step =
  | { readonly do: 'receive'; readonly count: number }
  | { readonly do: 'commit-part' }
  | { readonly do: 'settle'; readonly pick: number; readonly count: number }
  | { readonly do: 'write'; readonly max: number }
  | { readonly do: 'flush' }
  /** The next write's snapshot is older than this many transactions of the log. */
  | { readonly do: 'hide'; readonly transactions: number }
  | {
      readonly do: 'end';
      readonly how: 'kill' | 'lost' | 'lost-after-commit' | 'kill-before-carried' | 'crash';
    };

export const schedule: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({ do: fc.constant('receive' as const), count: fc.integer({ min: 1, max: 6 }) }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('commit-part' as const) }) },
    {
      weight: 8,
      arbitrary: fc.record({
        do: fc.constant('settle' as const),
        pick: fc.nat(),
        count: fc.integer({ min: 1, max: 5 }),
      }),
    },
    {
      weight: 5,
      arbitrary: fc.record({ do: fc.constant('write' as const), max: fc.integer({ min: 1, max: 6 }) }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('flush' as const) }) },
    {
      weight: 2,
      arbitrary: fc.record({ do: fc.constant('hide' as const), transactions: fc.nat(3) }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant('end' as const),
        how: fc.constantFrom(
          'kill' as const,
          'lost' as const,
          'lost-after-commit' as const,
          'kill-before-carried' as const,
          'crash' as const,
        ),
      }),
    },
  ),
  { maxLength: 150, size: 'max' },
);

/** Drives the settlement as sessions do, over a server and a progress row that survive every end. */
export class World {
  readonly log: readonly Committed[];
  readonly settled = new Set<number>();
  /** Settled in a transaction that was committed: its rows are gone, its dead letters are written. */
  readonly written = new Set<number>();
  row: ProgressRow = { position: START, beyond: [] };
  /** Committed, and not on disk yet: a crash of the server takes them back, and the row with them. */
  private unflushed: {
    write: Write;
    before: ProgressRow;
    events: readonly number[];
    removed: readonly Identity[];
  }[] = [];
  /** What the table holds. */
  private rows: Identity[];
  /** Rows of settled events that nobody knows of since a kill: the sweep delivers them again. */
  private readonly orphaned = new Set<number>();
  private hidden = 0;
  private settlement: Settlement;
  private write: Write | undefined;
  private open: OutboxEvent[] = [];
  private next = { transaction: 0, event: 0 };
  private receiving: Transaction | undefined;

  /** Small: the row says less than is known, as it does of long lists. */
  private readonly smallRuns: number | undefined;
  private knownAtStart: readonly Run[] = [];

  constructor(transactions: readonly Committed[], smallRuns?: number) {
    this.log = transactions;
    this.smallRuns = smallRuns;
    this.rows = transactions.flatMap(({ events }) => events);
    this.settlement = this.begin(this.row);
  }

  private begin({ position, beyond }: ProgressRow, unseen: readonly Identity[] = []): Settlement {
    this.write = undefined;
    this.open = [];
    this.receiving = undefined;
    const first = this.log.findIndex(({ endLsn }) => endLsn > position);
    this.next = { transaction: first === -1 ? this.log.length : first, event: 0 };
    const beforeUntil = this.log.at(-1)?.endLsn ?? START;
    this.knownAtStart = beyond;
    const { smallRuns } = this;
    return (this.settlement = new Settlement({
      position,
      before: beyond,
      beforeUntil,
      unseen,
      ...(smallRuns !== undefined && { smallRuns }),
    }));
  }

  apply(step: Step): void {
    if (step.do === 'receive') for (let i = 0; i < step.count; i++) this.receive();
    else if (step.do === 'commit-part') this.receiveCommit();
    else if (step.do === 'settle')
      this.settle(this.open.splice(step.pick % Math.max(1, this.open.length), step.count));
    else if (step.do === 'write') this.stepWrite(step.max);
    else if (step.do === 'flush') this.flush();
    else if (step.do === 'hide') this.hidden = step.transactions;
    else this.end(step.how);
  }

  private receive(): void {
    const source = this.log[this.next.transaction];
    if (!source) return;
    const identity = source.events[this.next.event];
    if (!identity) {
      this.receiveCommit();
      return;
    }
    const begun = this.receiving === undefined;
    const transaction = (this.receiving ??= transactionOf({ xid: identity.xid }));
    const event = eventOf(identity.seq, transaction, { xid: identity.xid });
    this.next.event++;
    this.settlement.begin(begun ? [transaction] : [], START);
    if (this.settlement.settledBefore(event))
      assert.ok(this.written.has(event.seq), `P1 event ${event.seq} was skipped, unsettled`);
    else {
      const known =
        this.smallRuns === undefined ? this.written.has(event.seq) : containsEvent(this.knownAtStart, event);
      assert.ok(!known, `P4 event ${event.seq} comes again, although the row knew it`);
      this.open.push(event);
    }
  }

  private receiveCommit(): void {
    const source = this.log[this.next.transaction];
    if (!source || !this.receiving || this.next.event < source.events.length) return;
    this.receiving.endLsn = source.endLsn;
    this.receiving = undefined;
    this.next = { transaction: this.next.transaction + 1, event: 0 };
    this.settlement.begin([], source.endLsn);
  }

  private settle(events: readonly OutboxEvent[]): void {
    for (const { seq } of events) this.settled.add(seq);
    this.settlement.settle(events.map((event) => ({ event })));
  }

  /** Begins a write, or commits the one that was begun. */
  private stepWrite(max: number): void {
    if (!this.write) {
      this.write = this.settlement.nextWrite(max);
      return;
    }
    const before = this.row;
    const events = this.write.settled.map(({ event }) => event.seq).filter((seq) => !this.written.has(seq));
    this.store(this.write, this.write.settled);
    const snapshot = this.snapshot();
    const removed = this.remove(this.write.removable, snapshot.xmax);
    const position = this.settlement.committed(this.write, { removed: removed.length, snapshot });
    this.unflushed.push({ write: this.write, before, events, removed });
    this.write = undefined;
    assert.equal(position, this.row.position, 'acknowledged is what the row says');
  }

  private snapshot(): Snapshot {
    const xmax = 500 + Math.max(0, this.next.transaction - this.hidden);
    return { xmin: xmax, xmax, running: [] };
  }

  private remove(events: readonly Identity[], xmax: number): Identity[] {
    const removed = this.rows.filter(
      (row) => row.xid < xmax && events.some(({ seq, xid }) => seq === row.seq && xid === row.xid),
    );
    this.rows = this.rows.filter((row) => !removed.includes(row));
    return removed;
  }

  private flush(): void {
    const oldest = this.unflushed.shift();
    if (oldest) this.settlement.onDisk(oldest.write);
  }

  private takeBack(): void {
    for (const { events, removed } of this.unflushed) {
      for (const seq of events) this.written.delete(seq);
      this.rows.push(...removed);
    }
    this.row = this.unflushed[0]?.before ?? this.row;
  }

  private store(
    row: Pick<Write, 'position' | 'beyond'>,
    settled: readonly { readonly event: OutboxEvent }[],
  ): void {
    assert.ok(row.position >= this.row.position, 'the position only grows');
    for (const { event } of settled) this.written.add(event.seq);
    this.row = { position: row.position, beyond: row.beyond ?? this.row.beyond };
    this.check();
  }

  private end(how: Extract<Step, { do: 'end' }>['how']): void {
    if (how === 'lost-after-commit' && this.write) this.store(this.write, this.write.settled);
    const carried = this.settlement.carry();
    let unseen: readonly Identity[] = [];
    if (how === 'crash') this.takeBack();
    this.unflushed = [];
    // The process lives on: the next session writes first what this one could not.
    if (how === 'lost' || how === 'lost-after-commit' || how === 'crash') {
      this.store(carried, carried.unwritten);
      const { once } = byNumber<Identity>([
        ...carried.unwritten.map(({ event }) => event),
        ...carried.unseen,
      ]);
      const snapshot = this.snapshot();
      const removed = this.remove(once, snapshot.xmax);
      if (removed.length < once.length)
        unseen = unseenOf({ settled: carried.unwritten, retried: carried.unseen }, snapshot);
    } else {
      const forgotten = this.rows.filter(({ seq }) => this.written.has(seq));
      for (const { seq } of forgotten) this.orphaned.add(seq);
    }
    this.settlement = this.begin(this.row, unseen);
  }

  /** The row's claim is what was settled by committed writes, among what was received at all. */
  check(): void {
    for (const { endLsn, events } of this.log) {
      for (const event of events) {
        const claimed = endLsn <= this.row.position || containsEvent(this.row.beyond, event);
        if (claimed)
          assert.ok(
            this.settled.has(event.seq),
            `P1 the row claims event ${event.seq}, which is not settled`,
          );
        // Of a long list the row may say less, and never more.
        if (claimed || this.smallRuns === undefined)
          assert.equal(claimed, this.written.has(event.seq), `event ${event.seq}: claimed ${claimed}`);
      }
    }
  }

  finish(): void {
    for (let i = 0; i < 1_000 && this.row.position < (this.log.at(-1)?.endLsn ?? START); i++) {
      this.receive();
      this.settle(this.open.splice(0));
      this.stepWrite(1_000);
    }
    assert.equal(this.row.position, this.log.at(-1)?.endLsn);
    this.hidden = 0;
    for (let i = 0; i < 3; i++) this.stepWrite(1_000);
    const left = this.rows.filter(({ seq }) => !this.orphaned.has(seq));
    assert.deepEqual(left, [], 'P5 rows of settled events stay behind');
    assert.equal(
      this.written.size,
      this.log.reduce((sum, { events }) => sum + events.length, 0),
    );
  }
}
