import { setTimeout as sleep } from 'node:timers/promises';
import { freshDatabase, withClient, type FreshDatabase } from '../../support/database.ts';
import { migrateByEnv } from '../../support/migrated.ts';
import { uniqueName } from '../../support/names.ts';
import type { RelayExit } from '../../support/relay-process.ts';
import { until } from '../../support/until.ts';
import type { Arena } from './arena.ts';
import type { BrokerRound } from './brokers.ts';
import { check, complaints, type Findings } from './checker.ts';
import { clockStepMs, FAULTS, type Stage } from './faults.ts';
import { MAIN, Replica } from './fleet.ts';
import { createJournal, createOutbox, readParked, readTruth, readWaiting } from './journal.ts';
import { isFailover, KINDS, type PlannedFault, type Schedule } from './schedule.ts';
import { paired, shared, type RoundServer } from './server.ts';
import { Watch } from './watch.ts';
import { Writers } from './writers.ts';

export interface RoundResult {
  readonly findings: Findings;
  /** Broken promises in words; empty: all kept. */
  readonly broken: readonly string[];
  /** Faults that could not be made, and why. */
  readonly notMade: readonly string[];
  /** Relays that ended without being asked to. */
  readonly ownExits: readonly RelayExit[];
  /** What the relays wrote. */
  readonly output: readonly string[];
}

const READY_TIMEOUT_MS = 30_000;
/** Everything is well again; longer than the longest deadline of the relay and a back-off at its cap. */
const DRAIN_TIMEOUT_MS = 75_000;
/** A third more than a relay took whose window of 10,000 events was full while the broker was away. */
const MAX_RSS_BYTES = 320 * 1024 ** 2;
const SEGMENT_BYTES = 16 * 1024 ** 2;

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
  private readonly notMade: string[] = [];
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
      const waiting = await this.drained(watch);
      await watch.stop();
      const exits = await Promise.all(this.replicas.map(async (replica) => await replica.hold('SIGTERM')));
      return await this.judge(watch, waiting, exits);
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
    const stage: Stage = {
      arena,
      server,
      round,
      replicas: this.replicas,
      databaseUrl: database.url,
      slotName: database.name,
    };
    const undisturbed = this.replicas.map((replica) => replica.disturb());
    try {
      const end = await FAULTS[fault.kind](stage, fault);
      await lasted();
      await end();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.notMade.push(`${fault.kind}: ${why.split('\n', 2).join(' ').slice(0, 200)}`);
    } finally {
      for (const end of undisturbed) end();
      this.healedMs = Date.now();
    }
  }

  /** Returns what still waits when the time is over. */
  private async drained(watch: Watch): Promise<string[]> {
    const { database, options, schedule } = this.parts;
    const timeoutMs = options.drainTimeoutMs ?? DRAIN_TIMEOUT_MS;
    let waiting: string[] = [];
    const empty = async (): Promise<boolean> => {
      waiting = await withClient(database.url, readWaiting);
      return waiting.length === 0;
    };
    // Where delivered rows stay as they are, the relays' own word is taken for the moment to judge, and for nothing else.
    if (schedule.env['CLEANUP'] === 'none') {
      const what = 'relays without lag';
      const quiet = await until(() => watch.isWithoutLag, { what, timeoutMs }).catch(() => false);
      return quiet ? [] : ['no relay is without lag'];
    }
    await until(empty, { what: 'everything to be delivered', timeoutMs }).catch(() => undefined);
    return waiting;
  }

  private async judge(
    watch: Watch,
    waiting: readonly string[],
    exits: readonly (RelayExit | undefined)[],
  ): Promise<RoundResult> {
    const { schedule, database, round, options } = this.parts;
    const { payloadType } = schedule.load;
    const [truth, parked] = await withClient(database.url, async (client) => [
      await readTruth(client),
      await readParked(client, payloadType),
    ]);
    const delivered = await round.read();
    const { samples } = watch;
    const findings = check(
      { truth, delivered, parked, waiting, samples, healedMs: this.healedMs },
      {
        maxDuplicates: options.maxDuplicates ?? duplicatesAllowed(schedule),
        maxRssBytes: MAX_RSS_BYTES,
        maxRetainedBytes:
          Number.parseInt(schedule.env['WAL_RETENTION_LIMIT_BYTES'] ?? '', 10) * 1024 ** 2 + SEGMENT_BYTES,
      },
    );
    const badExits = exits.filter((exit) => exit !== undefined && exit.code !== 0);
    const broken = [
      ...complaints(findings),
      ...badExits.map((exit) => `SIGTERM in peace ended with ${JSON.stringify(exit)}`),
    ];
    const ownExits = this.replicas.flatMap((replica) => replica.ownExits);
    const output = this.replicas.flatMap((replica, index) =>
      replica.output.map((text) => `relay ${index}\n${text}`),
    );
    return { findings, broken, notMade: this.notMade, ownExits, output };
  }
}

/** P4: a fault that repeats anything repeats at most the window of what was in flight and one batch. */
function duplicatesAllowed({ faults, env }: Schedule): number {
  const windowEvents = Number(env['MAX_IN_FLIGHT_EVENTS']);
  const repeating = faults.filter(({ kind }) => KINDS[kind].repeats).length;
  return repeating * (windowEvents + BATCH_EVENTS);
}

const BATCH_EVENTS = 500;
