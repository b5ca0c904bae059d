import { describe, test } from 'node:test';
import { assertLeaders } from '../fault/assert-leaders.ts';
import { changeLeaders, type LeaderFault } from '../fault/leaders.ts';
import type { BrokerName } from '../support/target.ts';

/** Longer than the lease and its grace. */
const AWAY_MS = 5_000;
/** Beside other tests everything takes longer; the long form, `npm run fault`, asks for 5 s. */
const TAKE_OVER_MS = 10_000;

const CASES: readonly (readonly [LeaderFault, BrokerName, string])[] = [
  ['kill', 'kafka', 'killed, on another machine than its successor'],
  ['stop', 'rabbitmq', 'stopped for longer than its lease, then continued'],
  ['cut', 'kafka', 'cut off from PostgreSQL, no connection reset, then healed'],
  ['lease-check', 'rabbitmq', 'stopped between the question for the lease and the write, then continued'],
];

describe('P8 three relays, the leader is', { concurrency: true }, () => {
  for (const [fault, broker, what] of CASES)
    test(
      `${what}: another delivers within seconds, never two on a key, nothing lost, order kept (${broker})`,
      { timeout: 120_000 },
      async (t) => {
        const result = await changeLeaders({ broker, fault, rounds: 1, awayMs: AWAY_MS });
        t.diagnostic(assertLeaders(fault, result, TAKE_OVER_MS));
      },
    );
});
