import type { RoundOptions } from './round.ts';
import {
  makeSchedule,
  type Broker,
  type FaultKind,
  type Load,
  type PlannedFault,
  type Schedule,
} from './schedule.ts';

/** A piece of a file of `src/`, found exactly once, and what stands there instead. */
export interface Edit {
  readonly file: string;
  readonly search: string;
  readonly replace: string;
}

/** A bug on purpose: the checker has to find it. */
export interface Plant {
  readonly name: string;
  /** What the relay does wrong, and which of its defences had to go with it. */
  readonly describes: string;
  readonly broker: Broker;
  readonly edits: readonly Edit[];
  /** Rounds in which the bug can show; everything else is drawn as ever. */
  readonly schedule: (seed: number) => Schedule;
  readonly options?: Pick<RoundOptions, 'maxDuplicates' | 'stopAt'>;
}

interface Wish {
  readonly broker: Broker;
  readonly relays?: number;
  readonly kinds?: readonly FaultKind[];
  readonly lifeMs?: number;
  readonly pods?: boolean;
  readonly env?: Readonly<Record<string, string>>;
  readonly load?: Partial<Load>;
  readonly faults?: readonly PlannedFault[];
}

const CALM = { bursts: [], long: [], big: [], crowds: [], poison: [], nowhere: [] } as const;

/** Draws by the seed what the wish leaves open. */
export function rounds(wish: Wish): (seed: number) => Schedule {
  const { broker, relays = 1, kinds, lifeMs = 4_000, pods = false, env, load, faults } = wish;
  return (seed) => {
    const drawn = makeSchedule(seed, broker, { relays, lifeMs, ...(kinds && { kinds }) });
    return {
      ...drawn,
      pods,
      coldStart: false,
      // Kept rows go with neither every source nor every fault that a bug needs to show.
      env: {
        ...drawn.env,
        SOURCE: 'auto',
        ...(drawn.env['CLEANUP'] === 'none' && { CLEANUP: 'delete' }),
        ...env,
      },
      load: { ...drawn.load, ...CALM, ...load },
      faults: faults ?? drawn.faults,
    };
  };
}

export function fault(
  kind: FaultKind,
  atMs: number,
  forMs: number,
  how: Partial<PlannedFault> = {},
): PlannedFault {
  return { kind, atMs, forMs, target: 0, amount: 0.5, ...how };
}
