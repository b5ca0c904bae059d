import { seeded } from '../../scripts/fault-result.ts';
import { FAULT_KINDS, KINDS, type Broker, type FaultKind, type PlannedFault } from './random/schedule.ts';

/** Other options change what the later minutes are compared with; a topic is late, and a standby takes over, only once. */
const LEFT_OUT: ReadonlySet<FaultKind> = new Set(['relay-options', 'topic-late', 'database-failover']);
const ENDS_A_RELAY: ReadonlySet<FaultKind> = new Set(['relay-kill', 'relay-term']);
/** Shares of a minute, so that a test can make it shorter. */
const EARLIEST = 3 / 60;
const LATEST = 6 / 60;
const SHORTEST = 1 / 60;
const LONGEST = 15 / 60;
/** Where a destination is missing for more than five seconds, what fills half of the window by then is parked (README). */
const LONGEST_MISSING = 4 / 60;
const TAKES_A_DESTINATION: ReadonlySet<FaultKind> = new Set(['exchange-removed', 'binding-removed']);
const TARGETS = 6;

export interface SoakPlan {
  readonly seed: number;
  readonly broker: Broker;
  readonly minutes: number;
  readonly minuteMs: number;
}

/**
 * One fault for each minute; each kind comes once before any comes again. Only the second relay is ever ended: what
 * leaks shows in a process that lives.
 */
export function planSoak({ seed, broker, minutes, minuteMs }: SoakPlan): PlannedFault[] {
  const random = seeded(seed * 7919 + (broker === 'kafka' ? 3 : 4));
  const between = (least: number, most: number): number => least + random() * (most - least);
  let deck: FaultKind[] = [];
  return Array.from({ length: minutes }, () => {
    if (deck.length === 0) deck = shuffled(kindsOf(broker), random);
    const kind = deck.pop() ?? 'broker-reset';
    const target = Math.floor(random() * TARGETS);
    return {
      kind,
      atMs: Math.round(between(EARLIEST, LATEST) * minuteMs),
      forMs: Math.round(
        between(SHORTEST, TAKES_A_DESTINATION.has(kind) ? LONGEST_MISSING : LONGEST) * minuteMs,
      ),
      target: ENDS_A_RELAY.has(kind) ? 1 : target,
      amount: random(),
    };
  });
}

function kindsOf(broker: Broker): FaultKind[] {
  return FAULT_KINDS.filter((kind) => {
    const known = KINDS[kind];
    return !LEFT_OUT.has(kind) && (!('only' in known) || known.only === broker);
  });
}

function shuffled(kinds: readonly FaultKind[], random: () => number): FaultKind[] {
  return kinds
    .map((kind) => ({ kind, place: random() }))
    .toSorted((a, b) => a.place - b.place)
    .map(({ kind }) => kind);
}
