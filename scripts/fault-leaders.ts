import { assertLeaders } from '../test/fault/assert-leaders.ts';
import { changeLeaders, type LeaderFault } from '../test/fault/leaders.ts';
import type { BrokerName } from '../test/support/target.ts';
import { complaint, counts, seeded, type Outcome } from './fault-result.ts';

/** Until the successor delivers: after a kill, or the lease and two seconds after a cut. */
const TAKE_OVER_MS = 5_000;
const STOPPED_MS = 30_000;
const AWAY_MS = 10_000;

export async function runLeaders(run: {
  broker: BrokerName;
  fault: LeaderFault;
  rounds: number;
  seed: number;
}): Promise<Outcome> {
  const { broker, fault, rounds, seed } = run;
  const awayMs = fault === 'stop' ? STOPPED_MS : AWAY_MS;
  const result = await changeLeaders({ broker, fault, rounds, awayMs, random: seeded(seed) });
  const takeOverMs = result.takeOverMs.toSorted((a, b) => a - b).map(Math.round);
  const broken = complaint(() => assertLeaders(fault, result, TAKE_OVER_MS));
  return {
    ...counts(result.verdict),
    late: [...result.late.values()],
    mostLeaders: result.mostLeaders,
    takenMs: result.takenMs.map(Math.round),
    takeOverMs,
    p50Ms: takeOverMs[Math.floor(rounds / 2)],
    maxMs: takeOverMs.at(-1),
    ...(broken !== undefined && { broken }),
    kept: broken === undefined,
  };
}
