import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nextMode, type Happening, type Mode } from '../../../src/lifecycle/mode.ts';

const HAPPENINGS: readonly Happening[] = [
  'another-leads',
  'leads',
  'streams',
  'polls',
  'session-ends',
  'needs-a-person',
  'stop',
  'stopped',
];

/** Every mode after every happening, in the order above; '.' where nothing changes. */
const EXPECTED: Readonly<Record<Mode, string>> = {
  starting: 'standby connecting . . . halted draining .',
  connecting: 'standby . streaming polling . halted draining .',
  standby: '. connecting . . connecting halted draining .',
  streaming: 'standby . . polling connecting halted draining .',
  polling: 'standby . streaming . connecting halted draining .',
  halted: 'standby connecting . . connecting . draining .',
  draining: '. . . . . . . stopped',
  stopped: '. . . . . . . .',
};

test('P8 every mode after everything that may happen', () => {
  for (const [mode, row] of Object.entries(EXPECTED) as [Mode, string][]) {
    const after = HAPPENINGS.map((happening) => nextMode(mode, happening));
    const expected = row.split(' ').map((next) => (next === '.' ? mode : next));
    assert.deepEqual(after, expected, mode);
  }
});

test('P8 nothing is published once a drain has begun, and nobody leads before the lease is held', () => {
  for (const happening of HAPPENINGS) {
    assert.ok(['draining', 'stopped'].includes(nextMode('draining', happening)));
    assert.ok(!['streaming', 'polling'].includes(nextMode('standby', happening)));
    assert.ok(!['streaming', 'polling'].includes(nextMode('halted', happening)));
  }
});
