import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../src/errors/thrown.ts';
import { freshDatabase, withClient, type FreshDatabase } from '../support/database.ts';
import { migrateByEnv } from '../support/migrated.ts';
import { uniqueName } from '../support/names.ts';
import { until } from '../support/until.ts';
import { Arena } from './random/arena.ts';
import type { BrokerRound } from './random/brokers.ts';
import { check, complaints, type Findings, type Record, type Truth } from './random/checker.ts';
import { make, mayHaveStruck } from './random/faults.ts';
import { MAIN, Replica } from './random/fleet.ts';
import { createJournal, drained, readParked, readTruth } from './random/journal.ts';
import { DRAIN_TIMEOUT_MS, duplicatesAllowed, MAX_RSS_BYTES, retainedAllowed } from './random/limits.ts';
import type { Broker, FaultKind, Load, PlannedFault } from './random/schedule.ts';
import { shared } from './random/server.ts';
import { Watch } from './random/watch.ts';
import { Writers } from './random/writers.ts';
import { SoakLog } from './soak-log.ts';
import { planSoak } from './soak-plan.ts';
import { probe, readDatabase, type DatabaseReading, type Probe } from './soak-probe.ts';

export interface SoakOptions {
  readonly broker: Broker;
  readonly minutes: number;
  /** Events a second, on average over a minute. */
  readonly rate: number;
  readonly seed: number;
  /** A test's minutes are shorter. */
  readonly minuteMs?: number;
  readonly onMinute?: (minute: SoakMinute) => void;
}

/** One minute: what was delivered in it, and what everybody held when it was over and all was well. */
export interface SoakMinute {
  readonly fault: PlannedFault;
  /** Why it could not be. */
  readonly notMade: string | undefined;
  readonly findings: Findings;
  /** Deliveries again of events of the minute before. */
  readonly lateDuplicates: number;
  readonly broken: readonly string[];
  readonly relays: readonly Probe[];
  readonly database: DatabaseReading;
  readonly brokerConnections: number;
  readonly streaming: boolean;
  /** Until everybody had told what they hold. */
  readonly seconds: number;
}

interface Made {
  readonly struck: readonly FaultKind[];
  readonly notMade: string | undefined;
  readonly healedMs: number;
}

export interface SoakResult {
  readonly minutes: readonly SoakMinute[];
  /** How often each relay ended without being asked to. */
  readonly ownExits: readonly number[];
  readonly output: readonly string[];
  /** Why it ended before its time. */
  readonly failure: string | undefined;
}

const RELAYS = 2;
/** The rest of the minute belongs to the drain, the judge and the sample. */
const WRITTEN_SHARE = 0.83;
const ROLLBACK = 0.05;
const SAVEPOINT = 0.1;
const READY_TIMEOUT_MS = 60_000;
/** A return to the stream is tried every 30 s, and a refused one backs off. */
const STREAM_TIMEOUT_MS = 60_000;
const WINDOW_EVENTS = 10_000;
const RETENTION_LIMIT_MIB = 128;
/** By how much each relay's wall clock is stepped. */
const CLOCK_STEPS_MS = ['5000', '-3600000'];

const ENV = {
  SOURCE: 'auto',
  CLEANUP: 'delete',
  MAX_IN_FLIGHT_EVENTS: String(WINDOW_EVENTS),
  MAX_IN_FLIGHT_BYTES: '16MiB',
  WAL_RETENTION_LIMIT_BYTES: `${RETENTION_LIMIT_MIB}MiB`,
  KAFKA_REQUEST_TIMEOUT_MS: '10000',
  RABBITMQ_CONFIRM_TIMEOUT_MS: '10000',
};

/** Two relays that live through minutes, each with a load, one fault, and peace at its end. */
export async function soak(options: SoakOptions): Promise<SoakResult> {
  const arena = await Arena.open(options.broker);
  const folder = mkdtempSync(join(tmpdir(), 'outbox-relay-soak-'));
  try {
    const database = await freshDatabase(arena.postgres.url);
    const round = await arena.broker.openRound(uniqueName('soak'), false);
    return await new Soak({ options, arena, database, round, folder }).run();
  } finally {
    await arena.remove();
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Parts {
  readonly options: SoakOptions;
  readonly arena: Arena;
  readonly database: FreshDatabase;
  readonly round: BrokerRound;
  readonly folder: string;
}

class Soak {
  private readonly parts: Parts;
  private readonly minuteMs: number;
  private readonly log: SoakLog;
  private readonly replicas: Replica[] = [];
  /** Ids of the minute before: they may come again. */
  private earlier: ReadonlySet<string> = new Set();

  constructor(parts: Parts) {
    this.parts = parts;
    this.minuteMs = parts.options.minuteMs ?? 60_000;
    this.log = new SoakLog(parts.round);
  }

  async run(): Promise<SoakResult> {
    const { options, database } = this.parts;
    await migrateByEnv({ DATABASE_URL: database.url, SLOT_NAME: database.name, CLEANUP: ENV.CLEANUP });
    await createJournal(database.url);
    const minutes: SoakMinute[] = [];
    let failure: string | undefined;
    try {
      // One after the other: the first one leads, and its first third is as warm as that of a leader.
      for (let index = 0; index < RELAYS; index++) await this.startReplica(index);
      for (const [index, fault] of planSoak({ ...options, minuteMs: this.minuteMs }).entries()) {
        const minute = await this.minute(index, fault);
        minutes.push(minute);
        options.onMinute?.(minute);
      }
    } catch (error) {
      // What was seen until then is worth its minutes.
      failure = `minute ${minutes.length + 1}: ${messageOf(error)}`;
    } finally {
      await Promise.all(this.replicas.map(async (replica) => await replica.remove()));
    }
    return {
      minutes,
      ownExits: this.replicas.map(({ ownExits }) => ownExits.length),
      output: this.replicas.flatMap(({ output }, index) => output.map((text) => `relay ${index}\n${text}`)),
      failure,
    };
  }

  private async startReplica(index: number): Promise<void> {
    const { database, round } = this.parts;
    const replica = await Replica.start({
      databaseUrl: database.url,
      main: new URL('soak-relay.ts', import.meta.url).href,
      pod: false,
      env: {
        ...ENV,
        ...round.env,
        SLOT_NAME: database.name,
        CLOCK_STEP_MS: CLOCK_STEPS_MS[index] ?? '0',
        SOAK_MAIN: MAIN,
        PROBE_FILE: this.probeFile(index),
      },
    });
    this.replicas.push(replica);
    await replica.waitForLine(index === 0 ? /mode: streaming/ : /mode: standby/, READY_TIMEOUT_MS);
  }

  private probeFile(index: number): string {
    return join(this.parts.folder, `relay-${index}.json`);
  }

  private async minute(index: number, fault: PlannedFault): Promise<SoakMinute> {
    const { options, database, arena } = this.parts;
    const startMs = performance.now();
    const watch = new Watch(database.url, database.name, this.replicas);
    const writers = new Writers(database.url, this.load(), options.seed * 1_000 + index);
    try {
      writers.start();
      const [made] = await Promise.all([this.make(fault), sleep(this.minuteMs * WRITTEN_SHARE)]);
      await writers.stop();
      const end = await drained(database.url, DRAIN_TIMEOUT_MS);
      const streaming = await this.returned();
      await watch.stop();
      const judged = await this.judge(made, { samples: watch.samples, ...end });
      const held = {
        relays: await Promise.all(
          this.replicas.map(async (replica, number) => await probe(replica, this.probeFile(number))),
        ),
        database: await withClient(database.url, async (client) => await readDatabase(client, database.name)),
        brokerConnections: arena.broker.lines.reduce((sum, { proxy }) => sum + proxy.connections, 0),
      };
      const seconds = (performance.now() - startMs) / 1_000;
      await sleep(Math.max(0, this.minuteMs - seconds * 1_000));
      return { fault, notMade: made.notMade, streaming, seconds, ...judged, ...held };
    } finally {
      await writers.stop();
      await watch.stop();
    }
  }

  private load(): Load {
    const { rate } = this.parts.options;
    const committedShare = (1 - ROLLBACK) * (1 - SAVEPOINT / 2);
    return {
      rate: rate / WRITTEN_SHARE / committedShare,
      writers: 5,
      keys: 200,
      hot: 0.2,
      rollback: ROLLBACK,
      savepoint: SAVEPOINT,
      payloadType: 'jsonb',
      bursts: [],
      long: [{ atMs: this.minuteMs / 6, holdMs: this.minuteMs / 12, commit: true }],
      big: [{ atMs: this.minuteMs / 3, bytes: 400_000 }],
      crowds: [],
      poison: [],
      nowhere: [],
    };
  }

  private async make(fault: PlannedFault): Promise<Made> {
    const { arena, database, round } = this.parts;
    await sleep(fault.atMs);
    const stage = {
      arena,
      server: shared(arena.postgres),
      round,
      replicas: this.replicas,
      databaseUrl: database.url,
      slotName: database.name,
    };
    const failed = await make(stage, fault, async () => await sleep(fault.forMs));
    await arena.heal();
    const struck = mayHaveStruck(failed) ? [fault.kind] : [];
    return { struck, notMade: failed.making, healedMs: Date.now() };
  }

  /** A leader that polls holds other connections than one that streams. */
  private async returned(): Promise<boolean> {
    const { database } = this.parts;
    const active = async (): Promise<boolean> =>
      await withClient(database.url, async (client) => {
        const sql = 'select from pg_replication_slots where slot_name = $1 and active';
        return (await client.query(sql, [database.name])).rowCount === 1;
      });
    const options = { what: 'the stream', timeoutMs: STREAM_TIMEOUT_MS, intervalMs: 200 };
    return await until(active, options).catch(() => false);
  }

  /** The minute's own journal against the minute's own part of the log: nothing of it is open any more. */
  private async judge(
    { struck, healedMs }: Made,
    seen: Pick<Record, 'samples' | 'waiting' | 'drainedMs'>,
  ): Promise<Pick<SoakMinute, 'findings' | 'broken' | 'lateDuplicates'>> {
    const { database } = this.parts;
    const [truth, parked] = await withClient(database.url, async (client) => [
      await readTruth(client),
      await readParked(client, 'jsonb'),
    ]);
    const read = await this.log.read();
    const delivered = read.filter(({ id }) => !this.earlier.has(id));
    const lateDuplicates = read.length - delivered.length;
    const maxDuplicates = duplicatesAllowed(struck, WINDOW_EVENTS);
    const limits = {
      maxDuplicates,
      maxRssBytes: MAX_RSS_BYTES,
      maxRetainedBytes: retainedAllowed(RETENTION_LIMIT_MIB),
    };
    const findings = check({ truth, delivered, parked, healedMs, ...seen }, limits);
    await this.forget(truth);
    const tooMany = findings.duplicates + lateDuplicates > maxDuplicates && lateDuplicates > 0;
    const broken = [
      ...complaints(findings),
      ...(tooMany ? [`${lateDuplicates} more duplicates, of the minute before`] : []),
    ];
    return { findings, lateDuplicates, broken };
  }

  private async forget(truth: readonly Truth[]): Promise<void> {
    this.earlier = new Set(truth.map(({ id }) => id));
    await withClient(
      this.parts.database.url,
      async (client) => await client.query('truncate journal, outbox_relay_dead_letters cascade'),
    );
  }
}
