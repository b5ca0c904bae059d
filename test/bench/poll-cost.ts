import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { CaptureScene } from '../support/capture.ts';
import { withClient } from '../support/database.ts';
import { TablePoller } from '../support/table-poller.ts';
import { quantile } from '../support/statistics.ts';

export interface PollCostOptions {
  readonly cleanup: 'delete' | 'mark';
  readonly rows: number;
  readonly seconds: number;
  readonly heldSnapshot: boolean;
}

export interface PollCost {
  readonly polls: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** `select 1` meanwhile, on another connection: what the machine's load alone costs. */
  readonly nothingP99Ms: number;
}

const WRITE_INTERVAL_MS = 100;

/**
 * What a poll costs after so many rows were delivered: the look, and now and then the question who holds the sequence's
 * lock. A few rows a second are written meanwhile. With `heldSnapshot` a snapshot was open elsewhere all the time, so
 * that nothing removed can be cleaned away; otherwise the table is vacuumed.
 */
export async function pollCost(serverUrl: string, options: PollCostOptions): Promise<PollCost> {
  const env = { SOURCE: 'polling', CLEANUP: options.cleanup };
  const scene = await CaptureScene.open({ serverUrl, env });
  try {
    const { url } = scene.database;
    return await withClient(url, async (elsewhere) => {
      if (options.heldSnapshot) await elsewhere.query('begin isolation level repeatable read; select 1');
      return await withClient(url, async (writer) => await measure(scene, writer, options));
    });
  } finally {
    await scene.close();
  }
}

async function measure(
  scene: CaptureScene,
  writer: Client,
  { rows, seconds, heldSnapshot }: PollCostOptions,
): Promise<PollCost> {
  await fill(writer, rows);
  const poller = new TablePoller(scene.config, scene.client);
  await poller.wait(() => poller.delivered.length >= rows, 'the backlog to be delivered', 600_000);
  if (!heldSnapshot) await writer.query('vacuum outbox');
  const from = poller.statements.length;
  const untilMs = performance.now() + seconds * 1000;
  const nothing: number[] = [];
  while (performance.now() < untilMs) {
    await fill(writer, 1);
    const beganMs = performance.now();
    await writer.query('select 1');
    nothing.push(performance.now() - beganMs);
    await sleep(WRITE_INTERVAL_MS);
  }
  const measured = poller.statements.slice(from);
  await poller.stop();
  const times = measured.filter(({ text }) => isPoll(text)).map(({ tookMs }) => tookMs);
  return {
    polls: times.length,
    p50Ms: quantile(times, 0.5),
    p99Ms: quantile(times, 0.99),
    maxMs: quantile(times, 1),
    nothingP99Ms: quantile(nothing, 0.99),
  };
}

function isPoll(text: string): boolean {
  return text.includes('took_ms') || text.includes('pg_locks');
}

async function fill(client: Client, rows: number): Promise<void> {
  await client.query(
    `insert into outbox (aggregatetype, aggregateid, type, payload)
     select 'thing', 'key-' || n % 100, 'Happened', jsonb_build_object('n', n) from generate_series(1, $1::int) n`,
    [rows],
  );
}
