import { judgeFlat, LEAST_VALUES, type Flatness, type Tolerance } from './soak-flat.ts';
import type { DatabaseReading, Probe } from './soak-probe.ts';
import type { SoakMinute, SoakResult } from './soak.ts';

const MIB = 1024 ** 2;
const FEW: Tolerance = { share: 0, plus: 2 };

const OF_A_RELAY = {
  rssBytes: { share: 0.1, plus: 15 * MIB },
  heldBytes: { share: 0.1, plus: 2 * MIB },
  descriptors: FEW,
  sockets: FEW,
  handles: FEW,
  timers: { share: 0.1, plus: 4 },
} as const satisfies Partial<Record<keyof Probe, Tolerance>>;

const OF_DATABASE = {
  outboxBytes: { share: 0.2, plus: 16 * MIB },
  relayTablesBytes: { share: 0.2, plus: 4 * MIB },
  databaseBytes: { share: 0.2, plus: 32 * MIB },
  backends: FEW,
  // Two segments: how far the server's own restart point lags behind when it is looked at is chance.
  retainedBytes: { share: 0.1, plus: 32 * MIB },
} as const satisfies Partial<Record<keyof DatabaseReading, Tolerance>>;

export interface SoakVerdict {
  readonly flatness: readonly Flatness[];
  /** Broken promises and what was not flat, in words; empty: all is well. */
  readonly broken: readonly string[];
}

/** Of the planned events; writers wait for a database that a fault has taken away. */
const LEAST_COMMITTED = 0.8;
/** A slot that is to be dropped while there is none; more of them, and the soak is not what it says. */
const MOST_NOT_MADE = 0.1;

/** `events`: planned for each minute. */
export function judgeSoak(
  result: Pick<SoakResult, 'minutes' | 'ownExits' | 'failure'>,
  events: number,
): SoakVerdict {
  const { minutes, ownExits, failure } = result;
  const flatness = [...ofRelays(minutes), ...ofAll(minutes)];
  const promises = minutes.flatMap(({ broken, fault }, index) =>
    broken.map((each) => `minute ${index + 1} (${fault.kind}): ${each}`),
  );
  const grown = flatness
    .filter(({ flat }) => !flat)
    .map(({ name, before, after, limit }) => `${name} grew from ${before} to ${after}, allowed ${limit}`);
  const ended = ownExits.flatMap((count, index) =>
    count === 0 ? [] : [`relay ${index} ended ${count} times by itself`],
  );
  const longLived = new Set(minutes.map(({ relays }) => relays[0]?.pid)).size === 1;
  const broken = [
    ...(failure === undefined ? [] : [failure]),
    ...promises,
    ...ended,
    ...(longLived ? [] : ['the first relay did not live for the whole time']),
    ...notWhatItSays(minutes, flatness, events),
    ...grown,
  ];
  return { flatness, broken };
}

/** What would let a soak look good that proves nothing. */
function notWhatItSays(
  minutes: readonly SoakMinute[],
  flatness: readonly Flatness[],
  events: number,
): string[] {
  const of = (what: string, is: (minute: SoakMinute) => boolean): string[] =>
    minutes.flatMap((minute, index) => (is(minute) ? [`minute ${index + 1}: ${what}`] : []));
  const notMade = minutes.filter((minute) => minute.notMade !== undefined).length;
  return [
    ...(flatness.some(({ name }) => name.endsWith(LEADING_FIRST))
      ? []
      : ['the first relay led for too few minutes to be judged']),
    ...(notMade > minutes.length * MOST_NOT_MADE ? [`${notMade} faults were not made`] : []),
    ...of('the stream did not come back', ({ streaming }) => !streaming),
    ...of(
      `less than ${LEAST_COMMITTED * events} events`,
      ({ findings }) => findings.committed < LEAST_COMMITTED * events,
    ),
  ];
}

function ofAll(minutes: readonly SoakMinute[]): Flatness[] {
  const database = entries(OF_DATABASE).map(([name, tolerance]) => ({
    name,
    tolerance,
    values: minutes.map((minute) => minute.database[name]),
  }));
  const values = minutes.map(({ brokerConnections }) => brokerConnections);
  return [...database, { name: 'brokerConnections', tolerance: FEW, values }].flatMap(judged);
}

/**
 * Each process against itself alone, since it was started; and only minutes against minutes in which it did the same
 * work: who leads holds more than who stands by, and they change places.
 */
function ofRelays(minutes: readonly SoakMinute[]): Flatness[] {
  const last = minutes.at(-1)?.relays ?? [];
  return last.flatMap(({ pid }, index) =>
    [true, false].flatMap((leads) => {
      const probes = minutes
        .filter(({ database }) => (database.leaderPid === pid) === leads)
        .flatMap(({ relays }) => relays.filter((each) => each.pid === pid));
      const where = whereOf(index, leads);
      return entries(OF_A_RELAY).flatMap(([name, tolerance]) =>
        judged({ name: `${name} ${where}`, tolerance, values: probes.map((each) => each[name]) }),
      );
    }),
  );
}

function whereOf(relay: number, leads: boolean): string {
  return `of relay ${relay} ${leads ? 'leading' : 'standing by'}`;
}

const LEADING_FIRST = whereOf(0, true);

function judged(series: Parameters<typeof judgeFlat>[0]): Flatness[] {
  return series.values.length < LEAST_VALUES ? [] : [judgeFlat(series)];
}

function entries<T extends object>(table: T): [keyof T & string, T[keyof T]][] {
  return Object.entries(table) as [keyof T & string, T[keyof T]][];
}
