import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { Scene } from '../support/crash-run.ts';
import { withClient } from '../support/database.ts';
import type { Verdict } from '../support/judge.ts';
import { modeChanges, terminated } from '../support/modes.ts';
import type { RelayProcess } from '../support/relay-process.ts';
import type { BrokerName } from '../support/target.ts';
import { until } from '../support/until.ts';
import { dropSlot } from '../support/drop-slot.ts';

const LIMIT_BYTES = 32 * 1024 ** 2;
const MODE_TIMEOUT_MS = 120_000;

export interface SwitchesResult {
  readonly verdict: Verdict;
  /** How often each reason changed the mode. */
  readonly reasons: Readonly<Record<string, number>>;
  readonly switches: number;
}

/**
 * The relay loses its slot again and again, dropped by somebody or given up at the limit, polls and comes back to the
 * stream by itself, under load and beside transactions that stay open for `openMs`, every third of which rolls back.
 */
export async function switches(run: {
  broker: BrokerName;
  switches: number;
  openMs: number;
  rate: number;
}): Promise<SwitchesResult> {
  const scene = await Scene.open(run.broker, { shop: { rate: run.rate } });
  const stop = new AbortController();
  const held: Promise<void>[] = [];
  try {
    scene.shop.start();
    held.push(
      ...[0, 1].map((offset) => holdTransactions(scene, { openMs: run.openMs, offset }, stop.signal)),
    );
    const relay = scene.startRelay({ env: { WAL_RETENTION_LIMIT_BYTES: String(LIMIT_BYTES) } });
    await streams(relay);
    for (let done = 0; done < run.switches; done += 2) {
      const before = modeChanges(relay).length;
      if (done % 4 === 0) await dropSlot(scene.database.url, scene.database.name);
      else await passLimit(scene, relay, before);
      await changed(relay, 'polling', before);
      await streams(relay, before);
    }
    stop.abort();
    await Promise.all(held);
    await scene.shop.stop();
    await scene.drained();
    await terminated(relay);
    const changes = modeChanges(relay);
    const reasons: Record<string, number> = {};
    for (const { mode, reason } of changes) {
      const name = `${mode}: ${reason}`;
      reasons[name] = (reasons[name] ?? 0) + 1;
    }
    return { verdict: await scene.verdict(), reasons, switches: changes.length - 1 };
  } finally {
    stop.abort();
    await Promise.allSettled(held);
    await scene.close();
  }
}

/** 200,000 rows wait, say, and writers go on, when a relay starts for the first time. */
export async function firstStart(run: {
  broker: BrokerName;
  rows: number;
  rate: number;
}): Promise<{ verdict: Verdict; drainedMs: number; changes: string }> {
  const scene = await Scene.open(run.broker, { shop: { rate: run.rate } });
  try {
    await withClient(scene.database.url, async (client) => await fill(client, run.rows));
    scene.shop.start();
    const startMs = performance.now();
    const relay = scene.startRelay();
    await streams(relay);
    await scene.shop.stop();
    await scene.drained();
    const drainedMs = performance.now() - startMs;
    await terminated(relay);
    const changes = modeChanges(relay).map(({ mode, reason }) => `${mode}: ${reason}`);
    return { verdict: await scene.verdict(), drainedMs, changes: changes.join(', ') };
  } finally {
    await scene.close();
  }
}

/** A statement does not see the rows that a function inserts inside it: first the events, then the journal. */
async function fill(client: Client, rows: number): Promise<void> {
  await client.query('begin');
  await client.query(
    `select outbox_emit('order', 'key-' || n % 100, 'Placed', to_jsonb('row ' || n)) from generate_series(1, $1) n`,
    [rows],
  );
  await client.query(
    `insert into journal (id, key, payload) select id, aggregateid, payload::text from outbox order by seq`,
  );
  await client.query('commit');
}

/** Events that become visible long after their number was drawn. */
async function holdTransactions(
  scene: Scene,
  { openMs, offset }: { openMs: number; offset: number },
  signal: AbortSignal,
): Promise<void> {
  await withClient(scene.database.url, async (client) => {
    await sleep((offset * openMs) / 2, undefined, { signal }).catch(() => undefined);
    for (let round = 0; !signal.aborted; round++) {
      await client.query(
        `begin; with e as (select outbox_emit('order', 'held-${offset}', 'Placed', '${round}') as id)
         insert into journal (id, key, payload) select id, 'held-${offset}', '${round}' from e`,
      );
      await sleep(openMs, undefined, { signal }).catch(() => undefined);
      await client.query(round % 3 === 2 ? 'rollback' : 'commit');
    }
  });
}

async function changed(relay: RelayProcess, mode: string, since: number): Promise<void> {
  const what = `the mode ${mode}`;
  await until(
    () =>
      modeChanges(relay)
        .slice(since)
        .some((change) => change.mode === mode),
    { what, timeoutMs: MODE_TIMEOUT_MS },
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${relay.output}`, { cause: error });
  });
}

async function streams(relay: RelayProcess, since = 0): Promise<void> {
  await changed(relay, 'streaming', since);
}

/** A transaction that stays open keeps the log from its beginning on, and meanwhile much is written. */
async function passLimit(scene: Scene, relay: RelayProcess, since: number): Promise<void> {
  await withClient(scene.database.url, async (client) => {
    await client.query('begin; select pg_current_xact_id()');
    await withClient(scene.database.url, async (writer) => {
      await writer.query(
        `select pg_logical_emit_message(false, 'noise', repeat('x', 1048576)) from generate_series(1, 48)`,
      );
      await changed(relay, 'polling', since);
    });
    await client.query('rollback');
  });
}
