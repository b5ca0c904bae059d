import { messageOf } from '../../../src/errors/thrown.ts';
import { withClient } from '../../support/database.ts';
import { until } from '../../support/until.ts';
import type { Arena } from './arena.ts';
import { NOTHING, type BrokerRound, type Undo } from './brokers.ts';
import type { Replica } from './fleet.ts';
import type { Direction, Line } from './line.ts';
import type { FaultKind, PlannedFault } from './schedule.ts';
import type { RoundServer } from './server.ts';

/** What a fault can reach. */
export interface Stage {
  readonly arena: Arena;
  readonly server: RoundServer;
  readonly round: BrokerRound;
  readonly replicas: readonly Replica[];
  /** The round's database, past every line. */
  readonly databaseUrl: string;
  readonly slotName: string;
}

/** Begins, and returns what ends it. */
type Fault = (stage: Stage, fault: PlannedFault) => Promise<Undo>;

/** What became of a planned fault; empty: it was made, and undone. */
export interface Failed {
  /** It did not strike, and why. */
  readonly making?: string;
  /** It struck; the round's end, which heals everything, undid it. */
  readonly undoing?: string;
}

const MOST_REASON = 200;
const NO_SLOT = 'there was no slot';

/** Also one that failed may have had its effect before. */
export function mayHaveStruck({ making }: Failed): boolean {
  return making !== NO_SLOT;
}

/** Makes a fault, and undoes it when `lasted` is over. */
export async function make(stage: Stage, fault: PlannedFault, lasted: () => Promise<void>): Promise<Failed> {
  const undisturbed = stage.replicas.map((replica) => replica.disturb());
  let step: keyof Failed = 'making';
  try {
    const end = await FAULTS[fault.kind](stage, fault);
    step = 'undoing';
    await lasted();
    await end();
    return {};
  } catch (error) {
    return { [step]: reasonOf(error) };
  } finally {
    for (const end of undisturbed) end();
  }
}

/** A server's output goes on and on, and tells of folders of this machine. */
function reasonOf(error: unknown): string {
  return messageOf(error)
    .split('\n', 2)
    .join(' ')
    .replaceAll(/\/[\w./-]+\//g, '')
    .slice(0, MOST_REASON);
}

/** How long SQL may wait for a database that another fault has taken away. */
const SQL_TIMEOUT_MS = 20_000;
const MOST_TORN_BYTES = 3_000;
const SLOWEST_MS = 300;
/** Between an hour back and an hour forth, and short of what a lease lasts. */
export const CLOCK_STEPS_MS = [-3_600_000, -1_500, 1_500, 5_000, 3_600_000] as const;
/** Options of the broker and of the relay that may change from one start to the next. */
const OPTIONS: readonly Readonly<Record<string, string>>[] = [
  { KAFKA_COMPRESSION: 'gzip', RABBITMQ_WINDOW: '10' },
  { KAFKA_MAX_BATCH_BYTES: '700000', RABBITMQ_WINDOW: '3000' },
  { MAX_IN_FLIGHT_EVENTS: '150' },
  { SOURCE: 'polling' },
  { SOURCE: 'auto' },
  { SOURCE: 'streaming' },
];

const FAULTS: Readonly<Record<FaultKind, Fault>> = {
  'relay-kill': async (stage, fault) => await down(replicaOf(stage, fault), 'SIGKILL'),
  'relay-term': async (stage, fault) => await down(replicaOf(stage, fault), 'SIGTERM'),
  'relay-options': async (stage, fault) => {
    const replica = replicaOf(stage, fault);
    replica.configure(OPTIONS[Math.floor(fault.amount * OPTIONS.length)] ?? {});
    return await down(replica, 'SIGTERM');
  },
  'relay-stop': async (stage, fault) => await paused([replicaOf(stage, fault)]),
  'relay-clock': async (stage, fault) => {
    const replica = replicaOf(stage, fault);
    replica.signal('SIGUSR2');
    return async () => await Promise.resolve(replica.signal('SIGUSR2'));
  },
  'broker-kill': async ({ arena }, { target }) => {
    await arena.broker.kill(target);
    return async () => await arena.broker.restore();
  },
  'broker-stop': async ({ arena }, { target }) => {
    const pids = arena.broker.pids();
    const pid = pids[target % pids.length];
    if (pid === undefined) return NOTHING;
    process.kill(pid, 'SIGSTOP');
    return async () => await Promise.resolve(void process.kill(pid, 'SIGCONT'));
  },
  'broker-full': async ({ arena }) => {
    await arena.broker.setFull(true);
    return async () => await arena.broker.setFull(false);
  },
  'postgres-crash': async ({ server }) => {
    await server.crash();
    return async () => await server.start();
  },
  'database-failover': async ({ server }) => {
    await server.failOver();
    return NOTHING;
  },
  'database-reset': async (stage, fault) => reset([databaseLine(stage, fault)]),
  'database-black-hole': async (stage, fault) => blackHole([databaseLine(stage, fault)]),
  'database-slow': async (stage, fault) => slow([databaseLine(stage, fault)], fault),
  'database-torn': async (stage, fault) => torn([databaseLine(stage, fault)], fault),
  'broker-reset': async (stage) => reset(stage.arena.broker.lines),
  'broker-black-hole': async (stage, fault) => blackHole(some(stage, fault)),
  'broker-slow': async (stage, fault) => slow(stage.arena.broker.lines, fault),
  'broker-torn': async (stage, fault) => torn(stage.arena.broker.lines, fault),
  'slot-dropped': async (stage) => {
    await dropSlot(stage);
    return NOTHING;
  },
  'slot-invalidated': async (stage) => {
    const go = await paused(stage.replicas);
    await invalidateSlot(stage).catch(async (error: unknown) => {
      await go();
      throw error;
    });
    return go;
  },
  'leader-moved': async ({ round }, { target }) => await round.moveLeader(target),
  'topic-late': async ({ round }) => await Promise.resolve(async () => await round.makeLate()),
  'binding-removed': async ({ round }, { target }) => await round.removeBinding(target),
  'exchange-removed': async ({ round }, { target }) => await round.removeExchange(target),
  'column-changed': async (stage) => {
    await alter(stage, 'add column note text default $$new$$');
    return async () => {
      await alter(stage, 'rename column note to remark');
      await alter(stage, 'drop column remark');
    };
  },
};

/** The step that SIGUSR2 makes for this fault. */
export function clockStepMs(fault: PlannedFault | undefined): number {
  return CLOCK_STEPS_MS[Math.floor((fault?.amount ?? 0) * CLOCK_STEPS_MS.length)] ?? 0;
}

function replicaOf({ replicas }: Stage, { target }: PlannedFault): Replica {
  const replica = replicas[target % replicas.length];
  if (replica === undefined) throw new RangeError('a round has at least one relay');
  return replica;
}

async function down(replica: Replica, signal: 'SIGKILL' | 'SIGTERM'): Promise<Undo> {
  // A drain may wait for what another fault has taken away, and that one's end must not wait for this one.
  const ended = replica.hold(signal);
  return async () => {
    await ended;
    replica.release();
    await Promise.resolve();
  };
}

async function paused(replicas: readonly Replica[]): Promise<Undo> {
  for (const replica of replicas) replica.signal('SIGSTOP');
  return async () => {
    for (const replica of replicas) replica.signal('SIGCONT');
    await Promise.resolve();
  };
}

function databaseLine(stage: Stage, fault: PlannedFault): Line {
  return replicaOf(stage, fault).line;
}

/** One of the broker's lines, or all of them. */
function some({ arena }: Stage, { target, amount }: PlannedFault): readonly Line[] {
  const { lines } = arena.broker;
  return amount < 0.5
    ? lines
    : [lines[target % lines.length] ?? lines[0]].filter((line) => line !== undefined);
}

function reset(lines: readonly Line[]): Undo {
  for (const { proxy } of lines) proxy.cut();
  return NOTHING;
}

function blackHole(lines: readonly Line[]): Undo {
  for (const { proxy } of lines) proxy.blackHole();
  return heals(lines);
}

function slow(lines: readonly Line[], { amount }: PlannedFault): Undo {
  for (const { proxy } of lines) proxy.slow(Math.ceil(amount * SLOWEST_MS));
  return heals(lines);
}

function torn(lines: readonly Line[], { amount, target }: PlannedFault): Undo {
  const direction: Direction = target % 2 === 0 ? 'to-server' : 'to-client';
  for (const line of lines) line.tear(direction, Math.ceil(amount * MOST_TORN_BYTES));
  return heals(lines);
}

function heals(lines: readonly Line[]): Undo {
  return async () => {
    for (const line of lines) line.heal();
    await Promise.resolve();
  };
}

async function sql(stage: Stage, ...statements: readonly string[]): Promise<void> {
  const attempt = async (): Promise<true> =>
    await withClient(stage.databaseUrl, async (client) => {
      for (const statement of statements) await client.query(statement);
      return true as const;
    });
  await until(attempt, { what: statements.join('; '), timeoutMs: SQL_TIMEOUT_MS });
}

/** A writer's long transaction is waited for in small portions, or every later writer would wait behind. */
async function alter(stage: Stage, change: string): Promise<void> {
  await sql(stage, `set lock_timeout = '100ms'`, `alter table outbox ${change}`);
}

/** While the table is polled there may be none: the fault was not made then, and is not counted. */
async function assertSlot({ databaseUrl, slotName }: Stage): Promise<void> {
  const { rows } = await withClient(
    databaseUrl,
    async (client) => await client.query('select from pg_replication_slots where slot_name = $1', [slotName]),
  );
  if (rows.length === 0) throw new Error(NO_SLOT);
}

async function dropSlot(stage: Stage): Promise<void> {
  await assertSlot(stage);
  const slot = `pg_replication_slots where slot_name = '${stage.slotName}'`;
  await sql(
    stage,
    `select pg_terminate_backend(active_pid) from ${slot} and active_pid is not null`,
    `select pg_drop_replication_slot(slot_name) from ${slot}`,
  );
}

/** The server may keep next to nothing for slots, its log moves on by several segments, and a checkpoint removes them. */
async function invalidateSlot(stage: Stage): Promise<void> {
  await assertSlot(stage);
  const move = `select pg_logical_emit_message(false, 'outbox-fault', 'on'), pg_switch_wal()`;
  await sql(
    stage,
    `alter system set max_slot_wal_keep_size = '1MB'`,
    'select pg_reload_conf()',
    move,
    move,
    move,
    'checkpoint',
    'alter system reset max_slot_wal_keep_size',
    'select pg_reload_conf()',
  );
}
