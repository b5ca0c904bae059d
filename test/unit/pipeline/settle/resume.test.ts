import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { resume } from '../../../../src/pipeline/settle/resume.ts';
import { toRuns } from '../../../../src/pipeline/settle/settled-runs.ts';
import type { Carried } from '../../../../src/pipeline/settle/settlement.ts';
import { eventOf, transactionOf } from '../builders.ts';

const nothing: Carried = { position: 100n, beyond: [], unwritten: [], unseen: [] };
const runs = toRuns([{ seq: 5, xid: 1 }]);

describe('resume', () => {
  it('P4 a position that an idle stream reached is noted before a stream starts there', () => {
    const row = { position: 90n, beyond: [] };
    assert.deepEqual(resume(nothing, row), { position: 100n, beyond: [], mustNote: true });
  });

  it('nothing is written when the row says it all', () => {
    assert.equal(resume(nothing, { position: 100n, beyond: [] }).mustNote, false);
  });

  it('what was settled, or not yet removed, is written', () => {
    const row = { position: 100n, beyond: [] };
    const event = eventOf(1, transactionOf());
    assert.equal(resume({ ...nothing, unwritten: [{ event }] }, row).mustNote, true);
    assert.equal(resume({ ...nothing, unseen: [{ seq: 7, xid: 1 }] }, row).mustNote, true);
  });

  it('P4 what the row does not say yet of events beyond the position is noted', () => {
    const row = { position: 100n, beyond: toRuns([{ seq: 9, xid: 2 }]) };
    assert.equal(resume({ ...nothing, beyond: runs }, row).mustNote, true);
    assert.equal(resume({ ...nothing, beyond: row.beyond }, row).mustNote, false);
  });

  it('P4 what another relay settled meanwhile is not taken back', () => {
    const other = toRuns([{ seq: 9, xid: 2 }]);
    const joined = resume({ ...nothing, beyond: runs }, { position: 200n, beyond: other });
    assert.deepEqual(joined, { position: 200n, beyond: [...runs, ...other], mustNote: false });
  });
});
