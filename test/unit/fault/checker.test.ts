import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  check,
  complaints,
  type Delivered,
  type Findings,
  type Limits,
  type Record,
  type Sample,
  type Truth,
} from '../../fault/random/checker.ts';

const LIMITS: Limits = { maxDuplicates: 1, maxRssBytes: 300 * 1024 ** 2, maxRetainedBytes: 1_000 };

function row(number: number, key: string, more: Partial<Truth> = {}): Truth {
  const id = `${key}${number}`;
  return { number, id, destination: 'order', key, digest: `d-${id}`, poison: false, writtenMs: 0, ...more };
}

function message({ id, destination, key, digest }: Truth, more: Partial<Delivered> = {}): Delivered {
  return { id, destination, key, digest, log: `order/${key}`, atMs: undefined, ...more };
}

const A1 = row(1, 'a');
const B2 = row(2, 'b');
const A3 = row(3, 'a');
const GIANT = row(4, 'g', { poison: true });
const PARKED = { id: GIANT.id, digest: GIANT.digest, code: 'event-too-large' };

function found(record: Partial<Record>): Findings {
  const whole: Record = {
    truth: [A1, B2, A3, GIANT],
    delivered: [A1, B2, A3].map((each) => message(each)),
    parked: [PARKED],
    waiting: [],
    samples: [],
    healedMs: 0,
    ...record,
  };
  return check(whole, LIMITS);
}

/** What the checker complains about, and nothing else. */
function complains(record: Partial<Record>, ...expected: RegExp[]): void {
  const said = complaints(found(record));
  assert.equal(said.length, expected.length, said.join('\n'));
  for (const [index, pattern] of expected.entries()) assert.match(said[index] ?? '', pattern);
}

test('the checker has nothing to say about a round in which all was kept', () => {
  const findings = found({});
  assert.deepEqual(complaints(findings), []);
  assert.equal(findings.committed, 4);
  assert.equal(findings.delivered, 3);
  assert.equal(findings.duplicates, 0);
});

test('P1 what is neither delivered nor parked is lost', () => {
  complains({ delivered: [message(A1), message(A3)] }, /^1 lost: b2$/);
  complains({ parked: [] }, /^1 lost: g4$/);
});

test('P2 what was never committed, delivered or parked, is invented', () => {
  const rolledBack = row(9, 'z');
  complains({ delivered: [A1, B2, A3, rolledBack].map((each) => message(each)) }, /^1 invented: z9$/);
  complains({ parked: [PARKED, { id: 'z9', digest: '', code: 'x' }] }, /^1 invented: z9$/);
});

test('P2 other bytes, another key or destination is altered, in a dead letter too', () => {
  for (const change of [{ digest: 'x' }, { key: 'b' }, { destination: 'late' }])
    complains({ delivered: [message(A1, change), message(B2), message(A3)] }, /^1 altered: a1$/);
  complains({ parked: [{ ...PARKED, digest: 'x' }] }, /^1 altered: g4$/);
  // The first copy was right; a second one that is not is no better.
  complains(
    { delivered: [message(A1), message(B2), message(A3), message(A3, { digest: 'x' })] },
    /^1 altered: a3$/,
  );
});

test('P3 a first delivery after a later event of its key is out of order, a late duplicate is not', () => {
  complains(
    { delivered: [message(A3), message(B2), message(A1)] },
    /^1 outOfOrder: .*a1 \(1\) after a3 \(3\)$/,
  );
  complains({ delivered: [message(A1), message(B2), message(A3), message(A1)] });
});

test('P3 a key that is delivered into two logs has no order', () => {
  complains(
    { delivered: [message(A1), message(B2), message(A3, { log: 'order/other' })] },
    /^1 outOfOrder: .*order\/a and in order\/other: a3$/,
  );
});

test('P3 the same key in two destinations is two orders', () => {
  const late = row(5, 'a', { destination: 'late' });
  complains({
    truth: [late, A1, B2, A3, GIANT],
    delivered: [A3, A1]
      .map((each) => message(each))
      .toReversed()
      .concat(message(B2), message(late, { log: 'l' })),
  });
});

test('P4 more duplicates than the faults allow', () => {
  const twice = [A1, B2, A3, A1].map((each) => message(each));
  assert.equal(found({ delivered: twice }).duplicates, 1);
  complains({ delivered: [...twice, message(A3)] }, /^2 duplicates$/);
});

test('P10 what could be delivered must not be parked, and what could not must be', () => {
  complains({ parked: [PARKED, { id: B2.id, digest: B2.digest, code: 'y' }] }, /^1 wronglyParked: b2 \(y\)$/);
  complains(
    { delivered: [A1, B2, A3, GIANT].map((each) => message(each)) },
    /^1 wronglyParked: g4 was to be parked and was delivered$/,
  );
});

test('rows that nobody delivers when all is well again', () => {
  complains({ waiting: ['b2'] }, /^1 undrained: b2$/);
});

interface Seen extends Partial<Sample> {
  readonly lag?: number;
  readonly rss?: number;
  readonly undisturbed?: boolean;
  readonly startedMs?: number;
}

function sample(atMs: number, seen: Seen = {}): Sample {
  const { lag, rss = 1, undisturbed = true, startedMs = 0, ...more } = seen;
  const relays = [{ startedMs, undisturbed, lagSeconds: lag, rssBytes: rss }];
  return { atMs, endedMs: atMs, oldestId: undefined, newestId: undefined, retainedBytes: 0, relays, ...more };
}

test('P9 a lag that is smaller than the age of what waits is untrue', () => {
  const waiting = { oldestId: B2.id };
  const delivered = [message(A1), message(B2, { atMs: 20_000 }), message(A3)];
  const frozen = [0, 4_000, 6_000].map((atMs) => sample(atMs, { ...waiting, lag: 0 }));
  complains({ delivered, samples: frozen }, /^1 lagUntrue: relay 0: 0 s while b2 waited for 6000 ms$/);
  complains({
    delivered,
    samples: [0, 4_000, 6_000].map((atMs) => sample(atMs, { ...waiting, lag: atMs / 1_000 })),
  });
  // Delivered by then: its row may still be there for a moment.
  complains({ delivered: [message(A1), message(B2, { atMs: 100 }), message(A3)], samples: frozen });
  // While the relays were asked.
  const slow = frozen.map((each) => ({ ...each, endedMs: each.atMs + 900 }));
  complains({ delivered: [message(A1), message(B2, { atMs: 6_500 }), message(A3)], samples: slow });
  // It may be with the broker; what came after it is not.
  const behind = frozen.map((each) => Object.assign(each, { newestId: A3.id }));
  complains(
    { delivered: [message(A1), message(B2, { atMs: 1 }), message(A3, { atMs: 20_000 })], samples: behind },
    /^1 lagUntrue: relay 0: 0 s while a3 waited for 6000 ms$/,
  );
  // A crash took it back.
  complains({ truth: [A1, A3, GIANT], delivered: [message(A1), message(A3, { atMs: 1 })], samples: behind });
  // Nobody who has only just begun can know.
  const late = [0, 4_000, 6_000].map((atMs) => sample(atMs, { ...waiting, lag: 0, startedMs: 5_000 }));
  complains({ delivered, samples: late });
  complains({ delivered, samples: [sample(0, { ...waiting, lag: -1 })] }, /^1 lagUntrue: relay 0: -1 s$/);
});

test('P7 more memory than a relay may need', () => {
  const findings = found({ samples: [sample(0, { rss: 400 * 1024 ** 2 })] });
  assert.deepEqual(complaints(findings), ['1 memory: 400 MiB']);
  assert.equal(findings.mostRssBytes, 400 * 1024 ** 2);
});

test('P6 a slot that keeps more than the limit although a relay could give it up', () => {
  const keeps = (atMs: number, more = {}): Sample => sample(atMs, { retainedBytes: 2 * 1024 ** 2, ...more });
  complains({ samples: [keeps(6_000), keeps(12_000)] }, /^1 retained: 2 MiB$/);
  complains({ samples: [keeps(6_000), keeps(10_000)] });
  complains({ samples: [keeps(6_000), sample(8_000), keeps(12_000)] });
  complains({ samples: [6_000, 12_000].map((atMs) => keeps(atMs, { undisturbed: false })) });
});

test('recovery lasts until everything is delivered that was written before the last fault ended', () => {
  const old = row(1, 'a', { writtenMs: 900 });
  const young = row(2, 'a', { writtenMs: 1_100 });
  const samples = [
    sample(800, {}),
    sample(1_200, { oldestId: old.id }),
    sample(1_500, { oldestId: young.id }),
    sample(1_800),
  ];
  const { recoveredMs } = check(
    { truth: [old, young], delivered: [], parked: [], waiting: [], samples, healedMs: 1_000 },
    LIMITS,
  );
  assert.equal(recoveredMs, 500);
  const unseen = samples.slice(0, 2);
  assert.equal(found({ truth: [old], samples: unseen, healedMs: 1_000, drainedMs: 1_300 }).recoveredMs, 300);
  assert.equal(found({ truth: [old], samples: unseen, healedMs: 1_000 }).recoveredMs, undefined);
});
