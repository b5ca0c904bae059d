import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Client } from 'pg';
import { writeCarried, type CarriedProgress } from '../../src/carried.ts';
import type { Progress, ProgressStore } from '../../src/pipeline/settle/progress.ts';
import type { Write, Written } from '../../src/pipeline/settle/settlement.ts';
import { eventOf, transactionOf } from './pipeline/builders.ts';

const PROGRESS = {
  handover: 'complete',
  slotCreatedLsn: 7n,
  durableLsn: 100n,
  tableSeq: -1,
  beyond: [],
} as unknown as Progress;

const CARRIED: CarriedProgress = {
  phase: 'complete',
  slotCreatedLsn: 7n,
  timeline: '00000001',
  position: 120n,
  beyond: [],
  unwritten: [],
  unseen: [],
};

/** A store whose statements see no transaction from `hiddenFrom` on. */
function storeThatSees(hiddenFrom: number): { store: ProgressStore; writes: Write[] } {
  const writes: Write[] = [];
  const write = async (_client: Client, asked: Write): Promise<Written> => {
    writes.push(asked);
    const removed = asked.removable.filter(({ xid }) => xid < hiddenFrom).length;
    const snapshot = { xmin: hiddenFrom, xmax: hiddenFrom, running: [] };
    return await Promise.resolve({ removed, snapshot });
  };
  return { store: { write } as unknown as ProgressStore, writes };
}

describe('What a session could not write', () => {
  it('P1 is written with its dead letters before any other row is removed, and what is not visible is handed on once', async () => {
    const { store, writes } = storeThatSees(9);
    const parked = { code: 'event-too-large', reason: '', attempts: 0, destination: null, key: null };
    const unwritten = [
      { event: eventOf(1, transactionOf({ xid: 5 })) },
      { event: eventOf(2, transactionOf({ xid: 9 })), parked },
      { event: eventOf(1, transactionOf({ xid: 6 })) },
    ];
    const unseen = [2, 3, 4].map((seq) => ({ seq, xid: seq === 4 ? 8 : 9 }));
    const carried = { ...CARRIED, unwritten, unseen };
    const left = await writeCarried({} as Client, store, { carried, progress: PROGRESS });
    assert.deepEqual(
      writes.map(({ removable }) => removable.map(({ seq, xid }) => [seq, xid])),
      [
        [
          [1, 5],
          [2, 9],
        ],
        [[1, 6]],
        [
          [3, 9],
          [4, 8],
        ],
        [],
      ],
    );
    assert.deepEqual(writes[0]?.settled, unwritten);
    // A crash in between must not find a position beyond rows that are not written.
    assert.deepEqual(
      writes.map(({ position }) => position),
      [100n, 100n, 100n, 120n],
    );
    assert.deepEqual(left.unseen, [
      { seq: 2, xid: 9 },
      { seq: 3, xid: 9 },
    ]);
    assert.deepEqual([left.carried?.unwritten, left.carried?.unseen], [[], left.unseen]);
  });

  it('P7 takes as many rows as a window may hold', async () => {
    const { store, writes } = storeThatSees(0);
    const transaction = transactionOf({ xid: 9 });
    const unwritten = Array.from({ length: 200_000 }, (_, index) => ({ event: eventOf(index, transaction) }));
    const carried = { ...CARRIED, unwritten };
    const { unseen } = await writeCarried({} as Client, store, { carried, progress: PROGRESS });
    assert.equal(unseen.length, 200_000);
    assert.ok(writes.every(({ settled }) => settled.length <= 5_000));
  });
});
