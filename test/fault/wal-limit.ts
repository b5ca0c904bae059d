import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { startKafka } from '../../src/demo/services/kafka.ts';
import { Scene } from '../support/crash-run.ts';
import { withClient } from '../support/database.ts';
import type { Verdict } from '../support/judge.ts';
import { slotsOf, streamedTimes, streamings, terminated } from '../support/modes.ts';
import { until } from '../support/until.ts';

export interface WalLimitResult {
  readonly verdict: Verdict;
  /** Most that a slot of ours kept of the log, bytes. */
  readonly mostRetainedBytes: number;
  /** Written to the log while the broker was away, bytes. */
  readonly writtenBytes: number;
  /** From the broker's return to an empty outbox. */
  readonly drainedMs: number;
}

export interface WalLimitOptions {
  readonly seconds: number;
  /** Events a second. */
  readonly rate: number;
  readonly limitBytes: number;
  /** While the broker is away: the slot is read, or it is being made and waits for an open transaction. */
  readonly slot: 'in-use' | 'in-the-making';
}

const LOOK_MS = 100;

/** The broker is away for so long, under load: what a slot of ours keeps of the log is looked at ten times a second. */
export async function walLimit(options: WalLimitOptions): Promise<WalLimitResult> {
  const kafka = await startKafka();
  process.env['TEST_KAFKA_BROKERS'] = kafka.brokers.join(',');
  const scene = await Scene.open('kafka', { shop: { rate: options.rate } });
  const { url } = scene.database;
  const blocker = new Client({ connectionString: url });
  await blocker.connect();
  const inTheMaking = options.slot === 'in-the-making';
  if (inTheMaking) await blocker.query('begin; create table blocking ()');
  const relay = scene.startRelay({ env: { WAL_RETENTION_LIMIT_BYTES: String(options.limitBytes) } });
  const watch = new SlotWatch(url);
  try {
    if (inTheMaking)
      await until(async () => (await slotsOf(url)).length === 1, {
        what: 'the slot in the making',
        timeoutMs: 60_000,
      });
    else await streamedTimes(relay, 1);
    scene.shop.start();
    await until(async () => (await scene.target.count()) > options.rate, {
      what: 'events to flow',
      timeoutMs: 60_000,
    });
    await kafka.stop('SIGKILL');
    const before = watch.endBytes;
    // The length of the outage is what is being tested.
    await sleep(options.seconds * 1000);
    const writtenBytes = watch.endBytes - before;
    const streamedBefore = streamings(relay);
    await blocker.query('rollback');
    await kafka.start();
    const startedMs = performance.now();
    await streamedTimes(relay, streamedBefore + 1, 600_000);
    await scene.shop.stop();
    await scene.drained(600_000);
    const drainedMs = performance.now() - startedMs;
    await terminated(relay);
    return {
      verdict: await scene.verdict(),
      mostRetainedBytes: watch.mostRetainedBytes,
      writtenBytes,
      drainedMs,
    };
  } finally {
    await relay.destroy();
    await watch.end();
    await blocker.end();
    await scene.close();
    await kafka.remove();
  }
}

class SlotWatch {
  mostRetainedBytes = 0;
  endBytes = 0;
  private ended = false;
  private readonly watching: Promise<void>;

  constructor(url: string) {
    this.watching = withClient(url, async (client) => {
      while (!this.ended) {
        await this.look(client);
        await sleep(LOOK_MS);
      }
    });
  }

  async end(): Promise<void> {
    this.ended = true;
    await this.watching;
  }

  private async look(client: Client): Promise<void> {
    const { rows } = await client.query<{ end: string; retained: string | null }>(
      `select l.lsn - '0/0' as end, max(l.lsn - s.restart_lsn) as retained
         from pg_current_wal_lsn() as l(lsn) left join pg_replication_slots s on s.database = current_database()
        group by l.lsn`,
    );
    this.endBytes = Number(rows[0]?.end);
    this.mostRetainedBytes = Math.max(this.mostRetainedBytes, Number(rows[0]?.retained ?? 0));
  }
}
