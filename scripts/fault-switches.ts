import { handoverKills } from '../test/fault/handover-kills.ts';
import { firstStart, switches } from '../test/fault/switches.ts';
import type { Verdict } from '../test/support/judge.ts';
import type { BrokerName } from '../test/support/target.ts';
import { counts, nothingWrong, type Outcome } from './fault-result.ts';

/** Transactions beside stay open for so long; it is also how long making a slot waits. */
const OPEN_MS = 10_000;
/** The window of a relay that is killed in the middle of a backlog. */
const MOST_DUPLICATES_A_KILL = 1_000;

export async function runSwitches(broker: BrokerName, count: number): Promise<Outcome> {
  const result = await switches({ broker, switches: count, openMs: OPEN_MS, rate: 400 });
  const { reasons } = result;
  const kept = result.switches >= count && exactlyOnce(result.verdict);
  return { ...counts(result.verdict), switches: result.switches, reasons, kept };
}

export async function runFirstStart(broker: BrokerName, rows: number): Promise<Outcome> {
  const { verdict, drainedMs, changes } = await firstStart({ broker, rows, rate: 400 });
  return { ...counts(verdict), drainedMs: Math.round(drainedMs), changes, kept: exactlyOnce(verdict) };
}

export async function runHandoverKills(broker: BrokerName, times: number): Promise<Outcome> {
  const { verdict, kills } = await handoverKills({ broker, times, rate: 300 });
  const kept = nothingWrong(verdict) && verdict.duplicates <= kills * MOST_DUPLICATES_A_KILL;
  return { ...counts(verdict), kills, duplicatesAKill: verdict.duplicates / kills, kept };
}

/** A switch alone causes no duplicate. */
function exactlyOnce(verdict: Verdict): boolean {
  return nothingWrong(verdict) && verdict.duplicates === 0;
}
