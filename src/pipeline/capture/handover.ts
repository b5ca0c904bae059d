import type { Client, ClientConfig } from 'pg';
import type { Config } from '../../config/config.ts';
import { RelayError } from '../../errors/errors.ts';
import { classify } from '../../errors/policy.ts';
import { faultPoint } from '../../lifecycle/fault-point.ts';
import type { Progress, ProgressStore } from '../settle/progress.ts';
import { readableSnapshot } from '../../postgres/snapshot.ts';
import { BEFORE_ALL } from './polling/table-pass.ts';
import { decideStart, type HandoverReason } from './start-decision.ts';
import { assertOurs, dropSlot, readSlot, ReplicationSession, type SystemIdentity } from './streaming/slot.ts';

export interface HandoverOptions {
  readonly config: Config;
  readonly client: Client;
  readonly replication: ClientConfig;
  readonly store: ProgressStore;
  readonly database: string;
  readonly signal: AbortSignal;
  readonly onHandover: (reason: HandoverReason) => void;
}

/**
 * Finds out where to begin, and makes the slot when there is none to trust. Returns the progress as it stands then:
 * `table`: what its snapshot sees comes from the table first; `complete`: stream from its durable position.
 */
export async function establish(options: HandoverOptions): Promise<Progress> {
  const { config, client, store, database, onHandover } = options;
  const session = await ReplicationSession.open(options.replication);
  try {
    const system = await session.identifySystem();
    const progress = await store.read(client);
    const slot = await readSlot(client, config.slotName);
    if (slot) assertOurs(slot, config.slotName, database);
    const decision = decideStart(progress, slot, system);
    if (decision.kind !== 'hand-over') return progress as Progress;
    onHandover(decision.reason);
    if (slot) await dropSlot(client, config.slotName);
    return await beginHandover(options, session, system, progress);
  } finally {
    await session.close();
  }
}

/**
 * Slot and snapshot are made in one step of the server: what the snapshot sees is delivered from the table, what it
 * does not see comes by the stream, and nothing is in both or in neither. A crash between the steps leaves a slot that
 * the progress row does not know: it is dropped and made again.
 */
async function beginHandover(
  options: HandoverOptions,
  session: ReplicationSession,
  system: SystemIdentity,
  before: Progress | undefined,
): Promise<Progress> {
  const { config, client, store, signal } = options;
  const { createdLsn, snapshotName } = await session.createSlot(config.slotName, signal);
  faultPoint('after-slot-create');
  const snapshot = await importSnapshot(client, snapshotName);
  faultPoint('after-snapshot-import');
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
    beyond: [],
  };
  await store.beginHandover(client, progress);
  faultPoint('after-handover-row');
  return progress;
}

/**
 * Before version 18 PostgreSQL refuses to decode what was written while the publication did not exist, also after it
 * was made again: such a slot can never be read on. The table has every event, so the slot is dropped and handed over
 * anew. Returns the error to end the session with: this one, unless it was that.
 */
export async function giveUpUnreadableSlot(
  client: Client,
  slotName: string,
  error: unknown,
): Promise<unknown> {
  if (classify(error).code !== 'publication-missing') return error;
  await dropSlot(client, slotName);
  return new RelayError('retry', 'slot-unreadable', 'the slot begins where the publication did not exist', {
    advice: 'The relay makes a new slot by itself and delivers from the table meanwhile.',
    cause: error,
  });
}

/** Reads the snapshot as text and lets go of it: nothing is held open while waiting for a broker. */
async function importSnapshot(client: Client, snapshotName: string): Promise<string> {
  await client.query('begin isolation level repeatable read');
  try {
    await client.query(`set transaction snapshot '${snapshotName.replaceAll("'", "''")}'`);
    const { rows } = await client.query<{ snapshot: string }>(
      'select pg_current_snapshot()::text as snapshot',
    );
    return readableSnapshot((rows[0] as { snapshot: string }).snapshot);
  } finally {
    await client.query('rollback');
  }
}
