import { DatabaseError, type Client, type ClientConfig } from 'pg';
import type { Config } from '../../config/config.ts';
import { RelayError } from '../../errors/errors.ts';
import { faultPoint } from '../../lifecycle/fault-point.ts';
import { retryUntil } from '../../lifecycle/retry-until.ts';
import { pause } from '../../lifecycle/wait.ts';
import type { Progress, ProgressStore } from '../settle/progress.ts';
import { quoteLiteral } from '../../postgres/identifier.ts';
import { parseSnapshot, readableSnapshot, seesAllOf } from '../../postgres/snapshot.ts';
import { BEFORE_ALL } from './polling/table-reader.ts';
import type { Run } from '../settle/settled-runs.ts';
import { decideStart, type StartDecision } from './start-decision.ts';
import {
  assertOurs,
  dropSlot,
  type LedSlot,
  readSlot,
  ReplicationSession,
  terminateHolder,
  type Slot,
  type SystemIdentity,
} from './streaming/slot.ts';

/** A server process that was told to end does so at its next look. */
const HOLDER_GONE_MS = 5_000;
const VISIBLE_LOOK_MS = 20;

/** A slot, and what was committed before it began. */
export interface MadeSlot {
  readonly system: SystemIdentity;
  readonly createdLsn: bigint;
  /** Text form; what it sees comes from the table. */
  readonly snapshot: string;
  /** The snapshot is that of the slot's beginning. Otherwise it is later, and the stream brings some of what it sees. */
  readonly exact: boolean;
}

interface Found {
  readonly progress: Progress | undefined;
  readonly slot: Slot | undefined;
  readonly decision: StartDecision;
}

/** Finds out where to begin. Throws when a slot of that name belongs to somebody else. */
export async function findStart(options: {
  readonly config: Config;
  readonly client: Client;
  readonly replication: ClientConfig;
  readonly store: ProgressStore;
  readonly database: string;
  /** Beyond it a slot is given up; Infinity where the table can't be polled instead. */
  readonly retentionLimitBytes: number;
  readonly signal: AbortSignal;
}): Promise<Found> {
  const { config, client, store, database, retentionLimitBytes } = options;
  const session = await ReplicationSession.open(options.replication, options.signal);
  try {
    const system = await session.identifySystem();
    const progress = await store.read(client);
    const slot = await readSlot(client, config.slotName);
    if (slot) assertOurs(slot, config.slotName, database);
    const decision = decideStart(progress, slot, system, retentionLimitBytes);
    if (decision.kind !== 'hand-over' && config.slotFailover && slot?.failover === false) {
      await terminateHolder(client, store.slot);
      await retryUntil(HOLDER_GONE_MS, async () => !(await readSlot(client, config.slotName))?.activePid);
      await session.makeFailover(config.slotName);
    }
    return { progress, slot, decision };
  } finally {
    await session.close();
  }
}

/**
 * Makes the slot; waits for every transaction that runs now, however long. Slot and snapshot are made in one step of
 * the server: what the snapshot sees is in the table, what it does not see comes by the stream, and nothing is in both
 * or in neither. `client` must be free: the snapshot is imported on it. The signal gives up and leaves no slot behind.
 *
 * The server exports no snapshot in which more transactions count as running than it has connections, and all count that
 * were rolled back since the oldest one began: a transaction of some seconds elsewhere is enough. `inexact`: take the slot
 * without, then.
 */
export async function makeSlot(options: {
  readonly slotName: string;
  readonly failover: boolean;
  readonly inexact: boolean;
  readonly client: Client;
  readonly replication: ClientConfig;
  readonly signal: AbortSignal;
}): Promise<MadeSlot> {
  const made = await makeWithSnapshot(options);
  // An inexact one is of this client, and sees nothing that others do not.
  if (made.exact) await untilVisible(options.client, made.snapshot, options.signal);
  return made;
}

async function makeWithSnapshot({
  slotName,
  failover,
  inexact,
  client,
  replication,
  signal,
}: Parameters<typeof makeSlot>[0]): Promise<MadeSlot> {
  const session = await ReplicationSession.open(replication, signal);
  try {
    const system = await session.identifySystem();
    const { createdLsn, snapshotName } = await session
      .createSlot({ slotName, failover, withSnapshot: true })
      .catch(async (error: unknown) => {
        if (!inexact || !isSnapshotTooLarge(error)) throw error;
        return await session.createSlot({ slotName, failover, withSnapshot: false });
      });
    faultPoint('after-slot-create');
    const snapshot = await readSnapshot(client, snapshotName);
    faultPoint('after-snapshot-import');
    return { system, createdLsn, snapshot, exact: snapshotName !== undefined };
  } finally {
    await session.close();
  }
}

/**
 * The slot's snapshot is read from the log. A commit that is in it and still waits for a standby, or for the processor, is
 * seen by nobody: the pass over the table would miss it, and the stream begins behind it.
 */
async function untilVisible(client: Client, snapshot: string, signal: AbortSignal): Promise<void> {
  const ofSlot = parseSnapshot(snapshot);
  for (;;) {
    signal.throwIfAborted();
    const { rows } = await client.query<{ now: string }>('select pg_current_snapshot()::text as now');
    if (seesAllOf(parseSnapshot((rows[0] as { now: string }).now), ofSlot)) return;
    await pause(VISIBLE_LOOK_MS, signal);
  }
}

function isSnapshotTooLarge(error: unknown): boolean {
  return error instanceof DatabaseError && error.code === '40001';
}

/**
 * From here on the slot is trusted. A crash before leaves one that the progress row does not know: it is dropped and
 * made again. `polled`: settled already, and not visible to the slot's snapshot, so that the stream brings them again.
 */
export async function handOver(
  store: ProgressStore,
  client: Client,
  { system, createdLsn, snapshot }: MadeSlot,
  { before, polled }: { readonly before: Progress | undefined; readonly polled: readonly Run[] },
): Promise<Progress> {
  // Also on another timeline: the row was written by a transaction newer than all that its horizon sees, so that
  // whoever has the row gives out none of those ids again.
  const sameHistory = before?.systemIdentifier === system.systemIdentifier;
  const progress: Progress = {
    ...system,
    slotCreatedLsn: createdLsn,
    handover: 'table',
    snapshot,
    horizon: sameHistory ? before.horizon : undefined,
    tableSeq: BEFORE_ALL,
    durableLsn: createdLsn,
    beyond: polled,
  };
  await store.beginHandover(client, progress);
  faultPoint('after-handover-row');
  return progress;
}

/**
 * A slot that can't be read on is dropped and handed over anew: the table has every event. Returns the error to end
 * the session with.
 */
export async function giveUpUnreadableSlot(
  client: Client,
  slot: LedSlot,
  cause: unknown,
): Promise<RelayError> {
  await dropSlot(client, slot);
  return new RelayError('retry', 'slot-unreadable', 'what comes next in the slot can not be read', {
    advice: 'The relay makes a new slot by itself and delivers from the table meanwhile.',
    cause,
  });
}

/** The exported one or a new one, as text, and lets go of it: nothing is held open while waiting for a broker. */
async function readSnapshot(client: Client, exported: string | undefined): Promise<string> {
  await client.query('begin isolation level repeatable read');
  try {
    if (exported !== undefined) await client.query(`set transaction snapshot ${quoteLiteral(exported)}`);
    const { rows } = await client.query<{ snapshot: string }>(
      'select pg_current_snapshot()::text as snapshot',
    );
    return readableSnapshot((rows[0] as { snapshot: string }).snapshot);
  } finally {
    await client.query('rollback');
  }
}
