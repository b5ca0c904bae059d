import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FAULT_KINDS, KINDS } from '../../fault/random/schedule.ts';
import { judgeFlat } from '../../fault/soak-flat.ts';
import { planSoak } from '../../fault/soak-plan.ts';
import type { DatabaseReading, Probe } from '../../fault/soak-probe.ts';
import { judgeSoak } from '../../fault/soak-verdict.ts';

const MIB = 1024 ** 2;
const MINUTES = 36;

function flat(values: readonly number[], plus = 2): boolean {
  return judgeFlat({ name: 'x', values, tolerance: { share: 0.1, plus } }).flat;
}

function steps(of: (minute: number) => number): number[] {
  return Array.from({ length: MINUTES }, (_, minute) => of(minute));
}

test('what grows by a little with every fault is found, and what has come to rest is not', () => {
  assert.equal(flat(steps((minute) => 10 + minute)), false);
  assert.equal(flat(steps((minute) => (minute < 12 ? minute : 12))), true);
  assert.equal(flat(steps(() => 10)), true);
});

test('single odd minutes decide nothing', () => {
  assert.equal(flat(steps((minute) => (minute % 5 === 0 ? 1_000 : 10))), true);
});

test('what stays within its tolerance is flat', () => {
  assert.equal(flat(steps((minute) => (minute < 24 ? 100 : 112))), true);
  assert.equal(flat(steps((minute) => (minute < 24 ? 100 : 113))), false);
});

test('too few values are no verdict', () => {
  assert.throws(() => judgeFlat({ name: 'x', values: [1, 2], tolerance: { share: 0, plus: 0 } }), RangeError);
});

const PROBE: Probe = {
  pid: 1,
  rssBytes: 150 * MIB,
  heldBytes: 20 * MIB,
  descriptors: 40,
  sockets: 12,
  handles: 12,
  timers: 8,
};
const DATABASE: DatabaseReading = {
  outboxBytes: 60 * MIB,
  relayTablesBytes: MIB,
  databaseBytes: 80 * MIB,
  backends: 7,
  retainedBytes: 16 * MIB,
  leaderPid: 1,
};

type Minutes = Parameters<typeof judgeSoak>[0]['minutes'];

const EVENTS = 60_000;

interface Odd {
  readonly relay?: Partial<Probe>;
  readonly database?: Partial<DatabaseReading>;
  readonly streaming?: boolean;
  readonly notMade?: string;
  readonly committed?: number;
}

function broken(of: (minute: number) => Odd, count = MINUTES): string {
  const minutes = steps((minute) => minute)
    .slice(0, count)
    .map((number) => {
      const { relay, database, streaming = true, notMade, committed = EVENTS } = of(number);
      return {
        streaming,
        notMade,
        findings: { committed },
        fault: { kind: 'broker-reset' },
        broken: [],
        relays: [
          { ...PROBE, ...relay },
          { ...PROBE, pid: 2 },
        ],
        database: { ...DATABASE, ...database },
        brokerConnections: 4,
      };
    });
  const result = { minutes: minutes as unknown as Minutes, ownExits: [0, 0], failure: undefined };
  return judgeSoak(result, EVENTS).broken.join('\n');
}

test('a soak in which nothing grows is kept', () => {
  assert.equal(
    broken(() => ({})),
    '',
  );
});

test('a relay that keeps a socket, or memory, with every fault is found', () => {
  assert.match(
    broken((minute) => ({ relay: { sockets: 12 + minute } })),
    /^sockets of relay 0 leading grew from 29.5 to 41.5, allowed 31.5$/,
  );
  assert.match(
    broken((minute) => ({ relay: { heldBytes: (20 + minute) * MIB } })),
    /^heldBytes of relay 0 leading grew/,
  );
});

test('a relay that takes the lead late holds more than before, and nothing has grown', () => {
  assert.equal(
    broken((minute) => ({
      relay: { rssBytes: (minute >= 20 ? 190 : 120) * MIB, sockets: minute >= 20 ? 20 : 3 },
      database: { leaderPid: minute >= 20 ? 1 : 2 },
    })),
    '',
  );
});

test('a table that bloats is found, and so is a log that is kept', () => {
  assert.match(
    broken((minute) => ({ database: { outboxBytes: (60 + 5 * minute) * MIB } })),
    /^outboxBytes grew/,
  );
  assert.match(
    broken((minute) => ({ database: { retainedBytes: minute * 4 * MIB } })),
    /^retainedBytes grew/,
  );
});

test('a first relay that did not live for the whole time proves nothing', () => {
  assert.match(
    broken((minute) => ({ relay: { pid: minute < 3 ? 9 : 1 } })),
    /^the first relay did not live/,
  );
});

test('a soak that is short, polls, writes little or makes no faults proves nothing', () => {
  assert.match(
    broken(() => ({}), 8),
    /^the first relay led for too few minutes to be judged$/,
  );
  assert.match(
    broken((number) => (number === 4 ? { streaming: false } : {})),
    /^minute 5: the stream did not come back$/,
  );
  assert.match(
    broken((number) => ({ committed: number === 0 ? 47_999 : 48_000 })),
    /^minute 1: less than 48000 events$/,
  );
  const notMade = { notMade: 'there was no slot' };
  assert.equal(
    broken((number) => (number < 3 ? notMade : {})),
    '',
  );
  assert.match(
    broken((number) => (number < 4 ? notMade : {})),
    /^4 faults were not made$/,
  );
});

test('each minute has a fault, over before the writers end; every kind comes once before any comes again', () => {
  const minuteMs = 60_000;
  for (const broker of ['kafka', 'rabbitmq'] as const) {
    const faults = planSoak({ seed: 5, broker, minutes: 100, minuteMs });
    assert.equal(faults.length, 100);
    const kinds = new Set(faults.map(({ kind }) => kind));
    const first = faults.slice(0, kinds.size).map(({ kind }) => kind);
    assert.equal(new Set(first).size, kinds.size);
    const possible = FAULT_KINDS.filter((kind) => {
      const known = KINDS[kind];
      return !('only' in known) || known.only === broker;
    });
    assert.deepEqual(
      possible.filter((kind) => !kinds.has(kind)),
      broker === 'kafka'
        ? ['relay-options', 'database-failover', 'topic-late']
        : ['relay-options', 'database-failover'],
    );
    for (const { kind, atMs, forMs, target } of faults) {
      assert.ok(atMs >= 3_000 && atMs + forMs <= 21_000);
      if (kind === 'exchange-removed' || kind === 'binding-removed') assert.ok(forMs <= 4_000);
      if (kind === 'relay-kill' || kind === 'relay-term') assert.equal(target % 2, 1);
    }
  }
});
