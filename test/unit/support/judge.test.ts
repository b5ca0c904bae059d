import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertDelivered, judge } from '../../support/judge.ts';
import type { CommittedRow } from '../../support/judge.ts';

const ROWS: CommittedRow[] = [
  { order: 1, id: 'a1', key: 'a', payload: '1' },
  { order: 2, id: 'b1', key: 'b', payload: '2' },
  { order: 3, id: 'a2', key: 'a', payload: '3' },
  { order: 4, id: 'n1', key: null, payload: null },
];

function received(...ids: string[]): { id: string; key: string | null; payload: string | null }[] {
  return ids.map((id) => ROWS.find((row) => row.id === id) ?? { id, key: 'x', payload: 'x' });
}

test('judge: every event once and in order is no finding', () => {
  const verdict = judge(ROWS, received('b1', 'n1', 'a1', 'a2'));
  assert.deepEqual(verdict, {
    committed: 4,
    received: 4,
    lost: [],
    invented: [],
    altered: [],
    outOfOrder: [],
    duplicates: 0,
  });
  assertDelivered(verdict, { maxDuplicates: 0 });
});

test('judge: P1 a committed event that never arrived is lost', () => {
  const verdict = judge(ROWS, received('a1', 'a2', 'n1'));
  assert.deepEqual(verdict.lost, ['b1']);
  assert.throws(() => assertDelivered(verdict, { maxDuplicates: 0 }), /1 lost, first: \["b1"\]/);
});

test('judge: P2 an event that was never committed is invented', () => {
  const verdict = judge(ROWS, received('a1', 'a2', 'b1', 'n1', 'rolled-back'));
  assert.deepEqual(verdict.invented, ['rolled-back']);
  assert.throws(() => assertDelivered(verdict, { maxDuplicates: 0 }), /1 invented/);
});

test('judge: P2 another payload or key is altered', () => {
  const [a1, b1, a2, n1] = ROWS as [CommittedRow, CommittedRow, CommittedRow, CommittedRow];
  const verdict = judge(ROWS, [{ ...a1, payload: '1.0' }, b1, { ...a2, key: 'b' }, { ...n1, payload: '' }]);
  assert.deepEqual(verdict.altered, ['a1', 'a2', 'n1']);
  assert.throws(() => assertDelivered(verdict, { maxDuplicates: 0 }), /3 altered/);
});

test('judge: P3 a first delivery after a later one of its key is out of order', () => {
  const verdict = judge(ROWS, received('a2', 'a1', 'b1', 'n1'));
  assert.deepEqual(verdict.outOfOrder, [{ key: 'a', id: 'a1', after: 'a2' }]);
  assert.throws(() => assertDelivered(verdict, { maxDuplicates: 0 }), /1 out of order/);
});

test('judge: P3 a late duplicate is not out of order, P4 but counted', () => {
  const verdict = judge(ROWS, received('a1', 'a2', 'a1', 'b1', 'n1'));
  assert.deepEqual(verdict.outOfOrder, []);
  assert.equal(verdict.duplicates, 1);
  assertDelivered(verdict, { maxDuplicates: 1 });
  assert.throws(() => assertDelivered(verdict, { maxDuplicates: 0 }), /1 duplicates, allowed 0/);
});
