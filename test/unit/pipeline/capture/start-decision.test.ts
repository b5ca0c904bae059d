import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { decideStart } from '../../../../src/pipeline/capture/start-decision.ts';
import type { Slot } from '../../../../src/pipeline/capture/streaming/slot.ts';
import type { Progress } from '../../../../src/pipeline/settle/progress.ts';

const system = { systemIdentifier: '7000', timeline: 2 };

const progress: Progress = {
  ...system,
  slotCreatedLsn: 50n,
  handover: 'complete',
  snapshot: undefined,
  horizon: undefined,
  tableSeq: 0,
  durableLsn: 100n,
  beyond: [],
};

const slot: Slot = {
  plugin: 'pgoutput',
  slotType: 'logical',
  database: 'shop',
  activePid: undefined,
  confirmedLsn: 100n,
  walStatus: 'reserved',
  invalidationReason: undefined,
  failover: undefined,
  retainedBytes: 1_000,
};

/** Every dimension with every value that matters; the first that fits decides. */
const rows = {
  missing: undefined,
  polled: { ...progress, handover: 'polling' as const },
  complete: progress,
  'in table': { ...progress, handover: 'table' as const },
  'other system': { ...progress, systemIdentifier: '7001' },
  'older timeline': { ...progress, timeline: 1 },
  'newer timeline': { ...progress, timeline: 3 },
};
const slots = {
  missing: undefined,
  lost: { ...slot, walStatus: 'lost' },
  'idle for too long': { ...slot, walStatus: 'lost', invalidationReason: 'idle_timeout' },
  'never ready': { ...slot, confirmedLsn: undefined },
  beyond: { ...slot, confirmedLsn: 101n },
  equal: slot,
  behind: { ...slot, confirmedLsn: 60n, walStatus: 'extended' },
  unreserved: { ...slot, walStatus: 'unreserved', activePid: 4_711 },
  'too large': { ...slot, retainedBytes: 1_001 },
};

function expected(row: keyof typeof rows, held: keyof typeof slots): string {
  if (row === 'missing') return 'first-start';
  if (row === 'polled') return 'polled';
  if (row === 'other system') return 'other-system';
  if (row === 'older timeline' || row === 'newer timeline') return 'other-timeline';
  if (held === 'missing') return 'slot-missing';
  if (held === 'idle for too long') return 'slot-idle-timeout';
  if (held === 'lost' || held === 'never ready') return 'slot-lost';
  if (held === 'beyond') return 'slot-recreated';
  if (held === 'too large') return 'wal-limit';
  return row === 'in table' ? 'resume-table' : 'stream';
}

describe('decideStart', () => {
  for (const row of Object.keys(rows) as (keyof typeof rows)[]) {
    for (const held of Object.keys(slots) as (keyof typeof slots)[]) {
      it(`P5 progress row ${row}, slot ${held}: ${expected(row, held)}`, () => {
        const decision = decideStart(rows[row], slots[held], system, 1_000);
        assert.equal(decision.kind === 'hand-over' ? decision.reason : decision.kind, expected(row, held));
      });
    }
  }
});
