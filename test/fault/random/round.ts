import { setTimeout as sleep } from 'node:timers/promises';
import { freshDatabase, withClient, type FreshDatabase } from '../../support/database.ts';
import { migrateByEnv } from '../../support/migrated.ts';
import { uniqueName } from '../../support/names.ts';
import type { RelayExit } from '../../support/relay-process.ts';
import { until } from '../../support/until.ts';
import type { Arena } from './arena.ts';
import type { BrokerRound } from './brokers.ts';
import { check, complaints, type Findings, type Sample } from './checker.ts';
import { clockStepMs, make, mayHaveStruck } from './faults.ts';
import { MAIN, Replica } from './fleet.ts';
import { createJournal, createOutbox, drained, readParked, readTruth } from './journal.ts';
import { DRAIN_TIMEOUT_MS, duplicatesAllowed, MAX_RSS_BYTES, retainedAllowed } from './limits.ts';
import { isFailover, type FaultKind, type PlannedFault, type Schedule } from './schedule.ts';
import { paired, shared, type RoundServer } from './server.ts';
import { Watch } from './watch.ts';
import { Writers } from './writers.ts';

export interface RoundResult {
  readonly findings: Findings;
  /** Broken promises in words; empty: all kept. */
  readonly broken: readonly string[];
  /** Faults that could not be made, and why. */
  readonly notMade: readonly string[];
  /** Faults that struck and were undone by the end of the round alone. */
  readonly notUndone: readonly string[];
  /** Relays that ended without being asked to. */
  readonly ownExits: readonly RelayExit[];
  /** What the relays wrote. */
  readonly output: readonly string[];
}

const READY_TIMEOUT_MS = 30_000;

export interface RoundOptions {
  /** URL of another relay's main file than this checkout's. */
  readonly main?: string;
  /** How long everything may take to be delivered when all is well again. */
  readonly drainTimeoutMs?: number;
  /** The first relay stops there: `<fault point>:<hit>`. A `relay-stop` wakes it up again. */
  readonly stopAt?: string;
  /** Tighter than what the window allows, for a schedule that leaves little under way. */
  readonly maxDuplicates?: number;
}

/** One round: writers, faults, then peace until everything is delivered; then it is judged. */
export async function runRound(
  arena: Arena,
  schedule: Schedule,
  options: RoundOptions = {},
): Promise<RoundResult> {
  await arena.heal();
  const server = schedule.faults.some(isFailover) ? await paired() : shared(arena.postgres);
  try {
    return await withRound({ arena, schedule, server, options });
  } finally {
    await server.release();
  }
}

async function withRound(parts: Omit<Parts, 'database' | 'round'>): Promise<RoundResult> {
  const { arena, schedule, server } = parts;
  const database = await freshDatabase(server.url);
  const late = schedule.faults.some(({ kind }) => kind === 'topic-late');
  const round = await arena.broker.openRound(uniqueName('round'), late);
  try {
    return await new Round({ ...parts, database, round }).run();
  } finally {
    await arena.heal();
    await server.start();
    await Promise.all([round.drop(), database.drop()]);
  }
}

interface Parts {
  readonly arena: Arena;
  readonly schedule: Schedule;
  readonly server: RoundServer;
  readonly database: FreshDatabase;
  readonly round: BrokerRound;
  readonly options: RoundOptions;
}

class Round {
  private readonly parts: Parts;
  private readonly struck: FaultKind[] = [];
  private readonly notMade: string[] = [];
  private readonly notUndone: string[] = [];
  private replicas: Replica[] = [];
  private healedMs = 0;

  constructor(parts: Parts) {
    this.parts = parts;
  }

  async run(): Promise<RoundResult> {
    const { schedule, database } = this.parts;
    await createOutbox(database.url, schedule.load.payloadType);
    await migrateByEnv({
      DATABASE_URL: database.url,
      SLOT_NAME: database.name,
      CLEANUP: schedule.env['CLEANUP'] ?? '',
    });
    await createJournal(database.url);
    const writers = new Writers(database.url, schedule.load, schedule.seed);
    let watch: Watch | undefined;
    try {
      this.replicas = await Promise.all(
        Array.from({ length: schedule.relays }, (_, index) => this.startReplica(index)),
      );
      if (!schedule.coldStart) await this.ready();
      watch = new Watch(database.url, database.name, this.replicas);
      writers.start();
      await this.live();
      await writers.stop();
      const end = await this.end(watch);
      await watch.stop();
      const exits = await Promise.all(this.replicas.map(async (replica) => await replica.hold('SIGTERM')));
      return await this.judge(watch.samples, end, exits);
    } finally {
      await writers.stop();
      await watch?.stop();
      await Promise.all(this.replicas.map(async (replica) => await replica.remove()));
    }
  }

  private async startReplica(index: number): Promise<Replica> {
    const { schedule, database, round, options } = this.parts;
    const clock = schedule.faults.find(
      ({ kind, target }) => kind === 'relay-clock' && target % schedule.relays === index,
    );
    return await Replica.start({
      databaseUrl: database.url,
      main: options.main ?? MAIN,
      pod: schedule.pods,
      env: {
        SLOT_NAME: database.name,
        CLOCK_STEP_MS: String(clockStepMs(clock)),
        ...(index === 0 && options.stopAt !== undefined && { STOP_AT: options.stopAt }),
        ...schedule.env,
        ...round.env,
      },
    });
  }

  private async ready(): Promise<void> {
    await Promise.any(
      this.replicas.map(
        async (replica) => await replica.waitForLine(/mode: (streaming|polling)/, READY_TIMEOUT_MS),
      ),
    );
  }

  /** The writers' life, and every fault in it. */
  private async live(): Promise<void> {
    const { schedule } = this.parts;
    const startMs = performance.now();
    const restUntil = async (ms: number): Promise<void> => {
      await sleep(Math.max(0, startMs + ms - performance.now()));
    };
    await Promise.all([
      restUntil(schedule.lifeMs),
      ...schedule.faults.map(async (fault) => {
        await restUntil(fault.atMs);
        await this.make(fault, async () => await restUntil(fault.atMs + fault.forMs));
      }),
    ]);
  }

  private async make(fault: PlannedFault, lasted: () => Promise<void>): Promise<void> {
    const { arena, server, database, round } = this.parts;
    const stage = {
      arena,
      server,
      round,
      replicas: this.replicas,
      databaseUrl: database.url,
      slotName: database.name,
    };
    const failed = await make(stage, fault, lasted);
    const { making, undoing } = failed;
    if (mayHaveStruck(failed)) this.struck.push(fault.kind);
    if (making !== undefined) this.notMade.push(`${fault.kind}: ${making}`);
    if (undoing !== undefined) this.notUndone.push(`${fault.kind}: ${undoing}`);
    this.healedMs = Date.now();
  }

  /** Peace until everything is delivered. */
  private async end(watch: Watch): Promise<End> {
    const { database, options, schedule } = this.parts;
    const timeoutMs = options.drainTimeoutMs ?? DRAIN_TIMEOUT_MS;
    if (schedule.env['CLEANUP'] !== 'none') return await drained(database.url, timeoutMs);
    // Where delivered rows stay as they are, the relays' own word is taken for the moment to judge, and for nothing else.
    const what = 'relays without lag';
    const quiet = await until(() => watch.isWithoutLag, { what, timeoutMs }).catch(() => false);
    return { waiting: quiet ? [] : ['no relay is without lag'], drainedMs: undefined };
  }

  private async judge(
    samples: readonly Sample[],
    end: End,
    exits: readonly (RelayExit | undefined)[],
  ): Promise<RoundResult> {
    const { schedule, database, round, options } = this.parts;
    const { payloadType } = schedule.load;
    const [truth, parked] = await withClient(database.url, async (client) => [
      await readTruth(client),
      await readParked(client, payloadType),
    ]);
    const delivered = await round.read();
    const windowEvents = Number(schedule.env['MAX_IN_FLIGHT_EVENTS']);
    const findings = check(
      { truth, delivered, parked, samples, healedMs: this.healedMs, ...end },
      {
        maxDuplicates: options.maxDuplicates ?? duplicatesAllowed(this.struck, windowEvents),
        maxRssBytes: MAX_RSS_BYTES,
        maxRetainedBytes: retainedAllowed(
          Number.parseInt(schedule.env['WAL_RETENTION_LIMIT_BYTES'] ?? '', 10),
        ),
      },
    );
    const badExits = exits.filter((exit) => exit !== undefined && exit.code !== 0);
    const ownExits = this.replicas.flatMap((replica) => replica.ownExits);
    const broken = [
      ...complaints(findings),
      ...badExits.map((exit) => `SIGTERM in peace ended with ${JSON.stringify(exit)}`),
      ...ownExits.map((exit) => `a relay ended by itself with ${JSON.stringify(exit)}`),
      ...(isSeen(samples) ? [] : ['no relay ever told its lag: neither that nor its memory was judged']),
    ];
    const output = this.replicas.flatMap((replica, index) =>
      replica.output.map((text) => `relay ${index}\n${text}`),
    );
    const { notMade, notUndone } = this;
    return { findings, broken, notMade, notUndone, ownExits, output };
  }
}

interface End {
  readonly waiting: readonly string[];
  readonly drainedMs: number | undefined;
}

function isSeen(samples: readonly Sample[]): boolean {
  return samples.some(({ relays }) => relays.some(({ lagSeconds }) => lagSeconds !== undefined));
}
