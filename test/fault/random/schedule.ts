import { seeded } from '../../../scripts/fault-result.ts';

export type Broker = 'kafka' | 'rabbitmq';

/** What two faults can't do to one thing at the same time. `relays` is every relay at once. */
type Resource =
  | 'relay'
  | 'relays'
  | 'broker'
  | 'postgres'
  | 'database-line'
  | 'broker-line'
  | 'topology'
  | 'schema';

interface Kind {
  readonly weight: number;
  /** Least and most milliseconds between its begin and its end. */
  readonly forMs: readonly [number, number];
  readonly resource: Resource;
  readonly only?: Broker;
  /**
   * It can leave a request without its answer, or an answer that no progress row holds when another relay takes over:
   * then the window of what was in flight comes again. Every other fault repeats nothing.
   */
  readonly repeats: boolean;
}

/** Every fault, in the order of the table of results. */
export const KINDS = {
  'relay-kill': { weight: 6, forMs: [0, 1_500], resource: 'relay', repeats: true },
  // Beyond the lease another one takes over, and the stopped one wakes up as a former leader.
  'relay-stop': { weight: 3, forMs: [500, 5_000], resource: 'relay', repeats: true },
  'relay-term': { weight: 3, forMs: [0, 1_000], resource: 'relay', repeats: false },
  'relay-options': { weight: 2, forMs: [0, 500], resource: 'relay', repeats: false },
  'relay-clock': { weight: 2, forMs: [500, 3_000], resource: 'relay', repeats: true },
  'broker-kill': { weight: 3, forMs: [300, 2_000], resource: 'broker', repeats: true },
  'broker-stop': { weight: 3, forMs: [500, 5_000], resource: 'broker', repeats: true },
  'broker-full': { weight: 1, forMs: [500, 2_000], resource: 'broker', only: 'rabbitmq', repeats: false },
  'postgres-crash': { weight: 5, forMs: [0, 1_500], resource: 'postgres', repeats: true },
  // Takes seconds: what comes after it must not meet a server that is being promoted.
  'database-failover': { weight: 1, forMs: [1_500, 1_500], resource: 'postgres', repeats: true },
  'database-reset': { weight: 3, forMs: [0, 0], resource: 'database-line', repeats: true },
  'database-black-hole': { weight: 3, forMs: [500, 5_000], resource: 'database-line', repeats: true },
  'database-slow': { weight: 2, forMs: [500, 3_000], resource: 'database-line', repeats: false },
  'database-torn': { weight: 3, forMs: [200, 1_000], resource: 'database-line', repeats: true },
  'broker-reset': { weight: 4, forMs: [0, 0], resource: 'broker-line', repeats: true },
  'broker-black-hole': { weight: 3, forMs: [500, 5_000], resource: 'broker-line', repeats: true },
  'broker-slow': { weight: 2, forMs: [500, 3_000], resource: 'broker-line', repeats: false },
  'broker-torn': { weight: 4, forMs: [200, 1_000], resource: 'broker-line', repeats: true },
  'slot-dropped': { weight: 4, forMs: [0, 0], resource: 'relays', repeats: false },
  'slot-invalidated': { weight: 2, forMs: [0, 500], resource: 'relays', repeats: true },
  'leader-moved': { weight: 4, forMs: [500, 1_500], resource: 'topology', only: 'kafka', repeats: true },
  'topic-late': { weight: 2, forMs: [1_000, 3_500], resource: 'topology', only: 'kafka', repeats: false },
  'binding-removed': {
    weight: 3,
    forMs: [300, 2_500],
    resource: 'topology',
    only: 'rabbitmq',
    repeats: false,
  },
  'exchange-removed': {
    weight: 3,
    forMs: [300, 2_000],
    resource: 'topology',
    only: 'rabbitmq',
    repeats: true,
  },
  'column-changed': { weight: 2, forMs: [200, 1_500], resource: 'schema', repeats: false },
} as const satisfies Readonly<Record<string, Kind>>;

export type FaultKind = keyof typeof KINDS;
export const FAULT_KINDS = Object.keys(KINDS) as FaultKind[];

export interface PlannedFault {
  readonly kind: FaultKind;
  /** Since the writers began. */
  readonly atMs: number;
  readonly forMs: number;
  /** Which relay, broker or partition: its number modulo how many there are. */
  readonly target: number;
  /** Between 0 and 1: a number of bytes, a step of the clock, which options; each fault's own. */
  readonly amount: number;
}

export interface Load {
  /** Events a second, all writers together, whether or not the earlier ones were answered. */
  readonly rate: number;
  readonly writers: number;
  readonly keys: number;
  /** Share of events that go to one of two keys. */
  readonly hot: number;
  readonly rollback: number;
  readonly savepoint: number;
  readonly payloadType: 'jsonb' | 'json' | 'text' | 'bytea';
  /** One transaction with so many events. */
  readonly bursts: readonly { readonly atMs: number; readonly events: number }[];
  /** A transaction that stays open beside the others. */
  readonly long: readonly { readonly atMs: number; readonly holdMs: number; readonly commit: boolean }[];
  readonly big: readonly { readonly atMs: number; readonly bytes: number }[];
  /** So many transactions that commit at the same moment: their commit records lie next to each other in the log. */
  readonly crowds: readonly { readonly atMs: number; readonly transactions: number }[];
  /** Events beyond MAX_EVENT_BYTES: they have to be parked. */
  readonly poison: readonly { readonly atMs: number }[];
  /** Events for a destination that does not exist: they have to be parked when TOPIC_GRACE_MS is over. */
  readonly nowhere: readonly { readonly atMs: number }[];
}

export interface Schedule {
  readonly seed: number;
  readonly broker: Broker;
  readonly relays: number;
  /** Each relay takes itself for a pod of its own: nobody can prove its death, its lease has to end. */
  readonly pods: boolean;
  /** Faults begin before the relays have come to rest. */
  readonly coldStart: boolean;
  /** How long the writers write. */
  readonly lifeMs: number;
  readonly env: Readonly<Record<string, string>>;
  readonly load: Load;
  readonly faults: readonly PlannedFault[];
}

/** Counted in text form: a `bytea` may have half of it. */
export const MAX_EVENT_BYTES = 1_000_000;

const LIFE_MS = [4_000, 7_000] as const;
/** Between the end of a fault and the next one of the same thing. */
const PAUSE_MS = 150;
/** The longest a fault may last beyond the writers' life. */
const OVERHANG_MS = 1_500;

export interface ScheduleLimits {
  readonly relays?: number;
  /** Draws among these alone. */
  readonly kinds?: readonly FaultKind[];
  readonly lifeMs?: number;
}

/** The same seed gives the same schedule, whatever happened in earlier rounds. */
export function makeSchedule(seed: number, broker: Broker, limits: ScheduleLimits = {}): Schedule {
  const dice = new Dice(seeded(seed * 7919 + (broker === 'kafka' ? 1 : 2)));
  const relays = limits.relays ?? dice.pick([1, 1, 2, 3]);
  const lifeMs = limits.lifeMs ?? dice.whole(...LIFE_MS);
  const load = makeLoad(dice, lifeMs);
  const drawnEnv = makeEnv(dice);
  const pods = dice.chance(0.5);
  const coldStart = dice.chance(0.2);
  const faults = makeFaults(dice, { broker, relays, lifeMs, kinds: limits.kinds ?? FAULT_KINDS });
  // Last, so that the draws before it stay what they were.
  const keepsRows = dice.chance(0.15) && drawnEnv['SOURCE'] !== 'polling' && !faults.some(needsClean);
  const env = {
    ...drawnEnv,
    // Or the new primary would lack what is delivered.
    ...(faults.some(isFailover) && { SLOT_FAILOVER: 'true' }),
    ...(keepsRows && { CLEANUP: 'none' }),
  };
  return { seed, broker, relays, pods, coldStart, lifeMs, env, load, faults };
}

function makeEnv(dice: Dice): Record<string, string> {
  return {
    SOURCE: dice.pick(['auto', 'auto', 'auto', 'streaming', 'polling']),
    CLEANUP: dice.pick(['delete', 'delete', 'delete', 'mark']),
    MAX_IN_FLIGHT_EVENTS: dice.pick(['200', '1000', '5000']),
    MAX_IN_FLIGHT_BYTES: '16MiB',
    WAL_RETENTION_LIMIT_BYTES: '64MiB',
    MAX_EVENT_BYTES: String(MAX_EVENT_BYTES),
    KAFKA_REQUEST_TIMEOUT_MS: dice.pick(['4000', '30000']),
    RABBITMQ_CONFIRM_TIMEOUT_MS: dice.pick(['4000', '30000']),
    RABBITMQ_WINDOW: dice.pick(['50', '1000']),
  };
}

function makeLoad(dice: Dice, lifeMs: number): Load {
  const at = (): number => dice.whole(200, lifeMs - 500);
  const some = <T>(most: number, make: () => T): T[] => Array.from({ length: dice.whole(0, most) }, make);
  return {
    rate: dice.pick([200, 400, 1_000]),
    writers: dice.whole(2, 5),
    keys: dice.pick([5, 30, 200]),
    hot: dice.pick([0, 0.2, 0.5]),
    rollback: dice.pick([0.05, 0.15, 0.3]),
    savepoint: dice.pick([0, 0.1, 0.3]),
    payloadType: dice.pick(['jsonb', 'json', 'text', 'bytea']),
    bursts: some(2, () => ({ atMs: at(), events: dice.whole(100, 1_500) })),
    long: some(2, () => ({ atMs: at(), holdMs: dice.whole(500, 4_000), commit: dice.chance(0.7) })),
    big: some(3, () => ({ atMs: at(), bytes: dice.whole(50_000, 450_000) })),
    poison: dice.chance(0.2) ? [{ atMs: at() }] : [],
    crowds: some(1, () => ({ atMs: at(), transactions: dice.whole(5, 15) })),
    // Their grace would make every round as long.
    nowhere: [],
  };
}

interface FaultPlan {
  readonly broker: Broker;
  readonly relays: number;
  readonly lifeMs: number;
  readonly kinds: readonly FaultKind[];
}

function makeFaults(dice: Dice, plan: FaultPlan): PlannedFault[] {
  const drawn: PlannedFault[] = [];
  const count = dice.pick([1, 1, 1, 2, 2, 2, 3, 3, 4, 5]);
  for (let number = 0; number < count; number++) {
    const kind = dice.weighted(plan.kinds.filter((each) => fits(KINDS[each], plan.broker)));
    const [least, most] = KINDS[kind].forMs;
    const fault: PlannedFault = {
      kind,
      // A topic that is late is missing from the beginning.
      atMs: kind === 'topic-late' ? 0 : dice.whole(500, plan.lifeMs - 500),
      forMs: dice.whole(least, most),
      target: dice.whole(0, 5),
      amount: dice.fraction(),
    };
    drawn.push(fault);
  }
  return withoutCollisions(beforeAStandby(drawn), plan);
}

/** With CLEANUP=none what was delivered in the last seconds before it is delivered again, however much that is. */
/** It loses the slot, or a start with SOURCE=polling is among the options, which is refused where rows stay as they are. */
function needsClean({ kind }: Pick<PlannedFault, 'kind'>): boolean {
  return ['slot-dropped', 'slot-invalidated', 'database-failover', 'relay-options'].includes(kind);
}

export function isFailover({ kind }: Pick<PlannedFault, 'kind'>): boolean {
  return kind === 'database-failover';
}

/** There is one standby; and what invalidates the relay's slot invalidates the standby's as well. */
function beforeAStandby(drawn: readonly PlannedFault[]): readonly PlannedFault[] {
  const first = drawn.find(isFailover);
  if (first === undefined) return drawn;
  return drawn.filter((each) => each === first || !(isFailover(each) || each.kind === 'slot-invalidated'));
}

function fits(kind: Kind, broker: Broker): boolean {
  return kind.only === undefined || kind.only === broker;
}

/** Moves a fault behind the one that has its thing; what would begin after the writers' life is left out. */
function withoutCollisions(drawn: readonly PlannedFault[], plan: FaultPlan): PlannedFault[] {
  const placed: PlannedFault[] = [];
  for (const fault of drawn.toSorted((a, b) => a.atMs - b.atMs)) {
    const rivals = placed.filter((other) => collide(fault, other, plan.relays));
    const freeMs = Math.max(0, ...rivals.map(({ atMs, forMs }) => atMs + forMs + PAUSE_MS));
    const atMs = Math.max(fault.atMs, freeMs);
    if (atMs >= plan.lifeMs || (fault.kind === 'topic-late' && atMs > 0)) continue;
    const forMs = Math.min(fault.forMs, plan.lifeMs + OVERHANG_MS - atMs);
    placed.push({ ...fault, atMs, forMs });
  }
  return placed;
}

function collide(a: PlannedFault, b: PlannedFault, relays: number): boolean {
  const [one, other] = [KINDS[a.kind].resource, KINDS[b.kind].resource];
  if (one === 'relay' && other === 'relay') return a.target % relays === b.target % relays;
  if (one === 'relays' || other === 'relays') {
    // The slot is dropped and invalidated by SQL, and invalidated while every relay stands still.
    const disturbing: ReadonlySet<Resource> = new Set(['relays', 'relay', 'postgres', 'database-line']);
    return disturbing.has(one) && disturbing.has(other);
  }
  return one === other;
}

class Dice {
  readonly fraction: () => number;

  constructor(random: () => number) {
    this.fraction = random;
  }

  /** Both ends included. */
  whole(least: number, most: number): number {
    return least + Math.floor(this.fraction() * (most - least + 1));
  }

  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  pick<T>(list: readonly [T, ...T[]]): T {
    return list[this.whole(0, list.length - 1)] as T;
  }

  weighted(kinds: readonly FaultKind[]): FaultKind {
    let left = this.fraction() * kinds.reduce((sum, kind) => sum + KINDS[kind].weight, 0);
    const found = kinds.find((kind) => (left -= KINDS[kind].weight) < 0) ?? kinds.at(-1);
    if (found === undefined) throw new RangeError('no kind of fault to draw from');
    return found;
  }
}
