import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Arrivals, reckon } from '../../../src/demo/reckoning.ts';
import type { Evidence, Reckoning } from '../../../src/demo/reckoning.ts';

const COMMITTED = [
  { id: 'a1', key: 'Anna', number: 1 },
  { id: 'a2', key: 'Anna', number: 2 },
  { id: 'b1', key: 'Bela', number: 1 },
];

function reckoned(arrived: readonly string[], evidence: Partial<Evidence> = {}): Reckoning {
  const arrivals = new Arrivals();
  for (const id of arrived) arrivals.add(id);
  const none = new Set<string>();
  return reckon({
    committed: COMMITTED,
    rolledBack: new Set(['x1']),
    arrivals,
    waiting: none,
    parked: none,
    ...evidence,
  });
}

function faults(reckoning: Reckoning): Record<string, number | boolean> {
  const { committed: _, rolledBack: __, ...rest } = reckoning;
  return Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== 0 && value !== false));
}

describe('reckoning of the demo', () => {
  it('is consistent when every committed event arrived once, in the order of its key', () => {
    assert.deepEqual(faults(reckoned(['b1', 'a1', 'a2'])), { delivered: 3, consistent: true });
  });

  it('P1 counts what did not arrive as lost, unless the database still has it', () => {
    assert.deepEqual(faults(reckoned(['a1'])), { delivered: 1, lost: 2 });
    const kept = { waiting: new Set(['a2']), parked: new Set(['b1']) };
    assert.deepEqual(faults(reckoned(['a1'], kept)), { delivered: 1, waiting: 1, parked: 1 });
  });

  it('P1 a delivered event whose row is not removed yet is delivered', () => {
    const reckoning = reckoned(['a1', 'a2', 'b1'], { waiting: new Set(['a1']) });
    assert.deepEqual(faults(reckoning), { delivered: 3, consistent: true });
  });

  it('P2 tells an event that was rolled back from one that nobody knows', () => {
    const reckoning = reckoned(['a1', 'a2', 'b1', 'x1', 'y1']);
    assert.deepEqual(faults(reckoning), { delivered: 3, rolledBackArrived: 1, foreign: 1 });
  });

  it('P3 counts a first arrival behind a later one of its key', () => {
    assert.deepEqual(faults(reckoned(['a2', 'b1', 'a1'])), { delivered: 3, outOfOrder: 1 });
  });

  it('P4 counts a repeated arrival, which is no fault of the order', () => {
    assert.deepEqual(faults(reckoned(['a1', 'a2', 'a1', 'b1'])), { delivered: 3, duplicates: 1 });
  });
});
