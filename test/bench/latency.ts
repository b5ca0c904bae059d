import { Client } from 'pg';
import { until } from '../support/until.ts';
import { fillBacklog } from './backlog.ts';
import { startBuiltRelay } from './built-relay.ts';
import { assertComplete, type BenchTarget } from './broker.ts';
import { usageOf } from './measured-process.ts';

const WARM_UP_SECONDS = 2;

export interface LatencyResult {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly cpuPercent: number;
}

/** Insert to append at the broker, open loop: events come at their time whether or not the last one has arrived. */
export async function latency(
  serverUrl: string,
  target: BenchTarget,
  options: { rate: number; seconds: number; env?: Readonly<Record<string, string>> },
): Promise<LatencyResult> {
  const env = { ...target.env, ...options.env };
  const backlog = await fillBacklog(serverUrl, { events: 0, keys: 1, env });
  const relay = startBuiltRelay(backlog, env);
  try {
    const events = options.rate * (options.seconds + WARM_UP_SECONDS);
    const before = usageOf(relay.pid);
    const startMs = performance.now();
    await insertOpenLoop(backlog.url, options.rate, events);
    await until(async () => (await target.count()) >= events, { timeoutMs: 60_000, what: 'all events' });
    const usage = usageOf(relay.pid);
    const elapsedSeconds = (performance.now() - startMs) / 1000;
    const arrivals = await target.arrivals();
    assertComplete(arrivals, events);
    const delays = arrivals
      .filter(({ n }) => n > options.rate * WARM_UP_SECONDS)
      .map(({ atMs, insertedAtMs }) => atMs - insertedAtMs)
      .toSorted((a, b) => a - b);
    const at = (share: number): number => delays[Math.floor(delays.length * share)] ?? Number.NaN;
    return {
      p50Ms: at(0.5),
      p99Ms: at(0.99),
      maxMs: delays.at(-1) ?? Number.NaN,
      cpuPercent: ((usage.cpuSeconds - before.cpuSeconds) / elapsedSeconds) * 100,
    };
  } finally {
    relay.kill('SIGTERM');
    await relay.exit;
    await backlog.drop();
  }
}

/** Stamped by the database's clock inside the insert. Pipelined over a few connections, so that no commit holds up the next. */
async function insertOpenLoop(url: string, rate: number, events: number): Promise<void> {
  const clients = await Promise.all(
    Array.from({ length: 8 }, async () => {
      const client = new Client({ connectionString: url });
      await client.connect();
      return client;
    }),
  );
  const startMs = performance.now();
  const pending: Promise<unknown>[] = [];
  let sent = 0;
  while (sent < events) {
    const due = Math.min(events, Math.floor(((performance.now() - startMs) * rate) / 1000));
    for (; sent < due; sent++) {
      const n = sent + 1;
      // A key stays with its connection: its events are committed in the order of n.
      const client = clients[n % clients.length] as Client;
      pending.push(
        client.query({
          name: 'insert',
          text: `insert into outbox (aggregatetype, aggregateid, type, payload) values ('bench', $1, 'Stamped',
                   jsonb_build_object('n', $2::int, 'fill', repeat('x', 240),
                                      'at', extract(epoch from clock_timestamp()) * 1000))`,
          values: [`key-${n % 1000}`, n],
        }),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(pending);
  await Promise.all(clients.map((client) => client.end()));
}
