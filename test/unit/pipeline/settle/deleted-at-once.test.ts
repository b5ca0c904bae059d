import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DeletedAtOnce, type WriteFindings } from '../../../../src/pipeline/settle/deleted-at-once.ts';

const ALL_GONE: WriteFindings = { events: 10, vanished: 10, ageMs: 50 };

/** Notes each write two seconds after the one before; after which of them it was certain. */
function certainAfter(writes: readonly WriteFindings[], apartMs = 2_000): number | undefined {
  const noticing = new DeletedAtOnce();
  const at = writes.findIndex((findings, i) => noticing.note(findings, i * apartMs));
  return at < 0 ? undefined : at + 1;
}

function times(count: number, part: Partial<WriteFindings> = {}): WriteFindings[] {
  return Array.from({ length: count }, () => ({ ...ALL_GONE, ...part }));
}

describe('DeletedAtOnce', () => {
  it('P1 is certain when write after write finds hardly a row, over ten seconds', () => {
    assert.equal(certainAfter(times(10)), 6);
    assert.equal(certainAfter(times(10, { vanished: 9 })), 6);
  });

  it('P5 rows that are found now and then are enough to trust the table', () => {
    const half = { ...ALL_GONE, vanished: 5 };
    const mixed = Array.from({ length: 40 }, (_, i) => (i % 5 === 4 ? half : ALL_GONE));
    assert.equal(certainAfter(mixed), undefined);
  });

  it('P5 a table that was emptied by hand, with or without a backlog, is no reason', () => {
    assert.equal(certainAfter(times(1_000, { events: 5_000, vanished: 5_000 }), 5), undefined, 'in a burst');
    assert.equal(certainAfter(times(100, { ageMs: 90_000 })), undefined, 'older events');
  });

  it('P5 few events prove nothing, and no event changes nothing', () => {
    assert.equal(certainAfter(times(19, { events: 1, vanished: 1 })), undefined);
    const idle = { events: 0, vanished: 0, ageMs: Infinity };
    assert.equal(certainAfter(times(10).flatMap((gone) => [idle, gone])), 10);
  });
});
