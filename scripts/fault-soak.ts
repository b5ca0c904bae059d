import { mkdirSync, writeFileSync } from 'node:fs';
import { soak, type SoakMinute, type SoakOptions } from '../test/fault/soak.ts';
import { judgeSoak } from '../test/fault/soak-verdict.ts';
import type { Outcome } from './fault-result.ts';
import { SHORT_LIVED_JAVA } from './short-lived-java.ts';

const LISTS = [
  'lost',
  'invented',
  'altered',
  'outOfOrder',
  'wronglyParked',
  'undrained',
  'lagUntrue',
] as const;

export async function runSoak(options: SoakOptions): Promise<Outcome> {
  process.env['JAVA_TOOL_OPTIONS'] ??= SHORT_LIVED_JAVA;
  let number = 0;
  const onMinute = (minute: SoakMinute): void => {
    process.stderr.write(`minute ${++number} of ${options.minutes}: ${inWords(minute)}\n`);
  };
  const result = await soak({ ...options, onMinute });
  const { minutes, ownExits, output } = result;
  const { flatness, broken } = judgeSoak(result, options.rate * 60);
  const kept = broken.length === 0;
  if (!kept) {
    mkdirSync('results', { recursive: true });
    writeFileSync(`results/soak-${options.broker}-${options.seed}.log`, `${output.join('\n\n')}\n`);
  }
  const sum = (of: (minute: SoakMinute) => number): number =>
    minutes.reduce((total, each) => total + of(each), 0);
  const counted = LISTS.map((name) => [name, sum(({ findings }) => findings[name].length)] as const);
  return {
    committed: sum(({ findings }) => findings.committed),
    ...Object.fromEntries(counted),
    duplicates: sum(({ findings }) => findings.duplicates),
    lateDuplicates: sum(({ lateDuplicates }) => lateDuplicates),
    ownExits,
    notMade: minutes.flatMap(({ notMade, fault }) =>
      notMade === undefined ? [] : [`${fault.kind}: ${notMade}`],
    ),
    broken,
    flatness,
    minutes: minutes.map(({ fault, relays, database, ...each }) => ({
      fault: fault.kind,
      committed: each.findings.committed,
      duplicates: each.findings.duplicates,
      recoveredMs: each.findings.recoveredMs && Math.round(each.findings.recoveredMs),
      seconds: Math.round(each.seconds),
      streaming: each.streaming,
      brokerConnections: each.brokerConnections,
      database,
      relays,
    })),
    kept,
  };
}

function inWords({
  fault,
  notMade,
  findings,
  broken,
  relays,
  database,
  streaming,
  seconds,
}: SoakMinute): string {
  const ofRelays = relays.map(
    ({ pid, rssBytes, heldBytes, descriptors }) =>
      `${pid === database.leaderPid ? 'leader' : 'standby'} ${mib(rssBytes)} MiB, held ${mib(heldBytes)}, ${descriptors} descriptors`,
  );
  return [
    `${fault.kind}${notMade === undefined ? '' : ` (not made: ${notMade})`}`,
    `${findings.committed} events, ${findings.duplicates} duplicates, recovered in ${findings.recoveredMs ?? '?'} ms`,
    ...ofRelays,
    `outbox ${mib(database.outboxBytes)} MiB, retained ${mib(database.retainedBytes)} MiB`,
    `${Math.round(seconds)} s${streaming ? '' : ', not streaming'}`,
    ...broken,
  ].join('; ');
}

function mib(bytes: number): number {
  return Math.round(bytes / 1024 ** 2);
}
