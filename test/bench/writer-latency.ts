import { execFileSync, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Client } from 'pg';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import { until } from '../support/until.ts';
import { fillBacklog, query, type Backlog } from './backlog.ts';
import { startBuiltRelay, type BuiltRelay } from './built-relay.ts';
import { usageOf } from './measured-process.ts';
import { quantile } from '../support/statistics.ts';

/**
 * What the relay costs a writer: time of an insert transaction with and without it, in turns, because the machine's
 * noise is larger than the difference: `npm run bench:writers [-- --rounds 5 --seconds 10 --rate 1000 --only delete,…]`.
 * With stdout as broker, so that nothing but PostgreSQL, the relay and the writers runs. `--seconds 90` is the long
 * form: the reader then holds its transaction for 60 s. `recvlogical` is the reference: PostgreSQL's own receiver on the
 * same slot in place of the relay, which is what streaming costs at the least.
 * `--pin`: the relay on one core, everything else on another, as when it runs on another machine than the database.
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '10' },
    rate: { type: 'string', default: '1000' },
    only: { type: 'string', default: 'recvlogical,delete,delete-polling,mark,partitions' },
    pin: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const rate = Number(values.rate);

const CONNECTIONS = 4;
/** The relay starts, delivers what was written without it, and its compiler learns what it runs. */
const WARM_UP_MS = 15_000;
const WARM_UP_WITHOUT_MS = 2_000;
/** Share of a phase in which a reader holds a transaction that has read the whole table. */
const READER_SHARE = 2 / 3;
const DATABASE_CORE = 0;
const RELAY_CORE = 1;
const OLD_PARTITIONS = 3;
const ROWS_IN_OLD = 5_000;

interface Scenario {
  readonly env: Readonly<Record<string, string>>;
  readonly partitioned: boolean;
  readonly reader?: 'nothing' | 'pg_recvlogical';
}

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  nothing: { env: {}, partitioned: false, reader: 'nothing' },
  recvlogical: { env: {}, partitioned: false, reader: 'pg_recvlogical' },
  delete: { env: { CLEANUP: 'delete' }, partitioned: false },
  'delete-polling': { env: { CLEANUP: 'delete', SOURCE: 'polling' }, partitioned: false },
  mark: { env: { CLEANUP: 'mark', MARK_RETENTION: '5s' }, partitioned: false },
  none: { env: { CLEANUP: 'none' }, partitioned: false },
  partitions: { env: { CLEANUP: 'none', PARTITION_RETENTION: '1s' }, partitioned: true },
};

const PARTITIONED = `create sequence outbox_seq;
  create table outbox (seq bigint not null default nextval('outbox_seq'), id uuid not null default gen_random_uuid(),
    aggregatetype text not null, aggregateid text not null, type text not null, payload jsonb, headers jsonb,
    xid xid8 not null default pg_current_xact_id(), created_at timestamptz not null default clock_timestamp(),
    delivered_at timestamptz, primary key (seq, created_at)) partition by range (created_at);
  create table outbox_now partition of outbox for values from ('2020-01-01') to ('2099-01-01');`;

/** Milliseconds of each insert, sent at its time on one of a few connections. */
async function writeFor(url: string, ms: number): Promise<number[]> {
  const times: number[] = [];
  const startMs = performance.now();
  const write = async (first: number): Promise<void> => {
    const client = new Client({ connectionString: url });
    await client.connect();
    for (let n = first; ; n += CONNECTIONS) {
      const dueMs = startMs + (n * 1000) / rate;
      if (dueMs > startMs + ms) break;
      const restMs = dueMs - performance.now();
      if (restMs > 0) await sleep(restMs);
      const sentMs = performance.now();
      await client.query({
        name: 'insert',
        text: `insert into outbox (aggregatetype, aggregateid, type, payload)
               values ('bench', $1, 'Written', jsonb_build_object('n', $2::int, 'fill', repeat('x', 240)))`,
        values: [`key-${n % 1000}`, n],
      });
      times.push(performance.now() - sentMs);
    }
    await client.end();
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, (_, index) => write(index)));
  return times;
}

/** Complete partitions of long ago, delivered by the next relay. Their years are never used again. */
async function addOldPartitions(url: string, round: number): Promise<void> {
  for (let index = 0; index < OLD_PARTITIONS; index++) {
    const year = 1900 + round * OLD_PARTITIONS + index;
    await query(
      url,
      `create table outbox_${year} partition of outbox for values from ('${year}-01-01') to ('${year + 1}-01-01');
       insert into outbox (aggregatetype, aggregateid, type, payload, created_at)
       select 'bench', 'old', 'Written', '{}', timestamptz '${year}-06-01' from generate_series(1, ${ROWS_IN_OLD})`,
    );
  }
}

async function partitionCount(url: string): Promise<number> {
  const [row] = await query(
    url,
    `select count(*) from pg_inherits where inhparent = 'outbox'::regclass and not inhdetachpending`,
  );
  return Number(row?.['count']);
}

/** In the way of everything that needs the table to itself. */
async function holdReader(url: string, ms: number): Promise<void> {
  const reader = new Client({ connectionString: url });
  await reader.connect();
  await reader.query('begin isolation level repeatable read');
  await reader.query('select count(*) from outbox');
  await sleep(ms);
  await reader.query('commit');
  await reader.end();
}

interface Phase {
  readonly times: readonly number[];
  readonly cpuPercent: number;
  readonly dropped: number;
}

function startReader(backlog: Backlog, { env, reader }: Scenario): BuiltRelay | undefined {
  if (reader === 'nothing') return undefined;
  if (reader === undefined)
    return startBuiltRelay(backlog, { BROKER: 'stdout', ROUTE_TOPIC: 'bench', ...env });
  const slot = ['-d', backlog.url, '-S', backlog.name, '--start', '-f', '/dev/null'];
  const plugin = ['-o', 'proto_version=1', '-o', 'publication_names=outbox_relay'];
  const child = spawn('pg_recvlogical', [...slot, ...plugin], { stdio: ['ignore', 'ignore', 'inherit'] });
  return {
    pid: child.pid as number,
    kill: (signal) => void child.kill(signal),
    exit: new Promise((resolve) => child.once('exit', (code) => resolve(code))),
  };
}

function pin(pid: number, core: number): void {
  execFileSync('taskset', ['--all-tasks', '--pid', '--cpu-list', String(core), String(pid)], {
    stdio: 'ignore',
  });
}

async function phase(
  backlog: Backlog,
  scenario: Scenario,
  round: number,
  withRelay: boolean,
): Promise<Phase> {
  const { url } = backlog;
  const ms = seconds * 1000;
  const relay = withRelay ? startReader(backlog, scenario) : undefined;
  if (relay && values.pin) pin(relay.pid, RELAY_CORE);
  try {
    await writeFor(url, withRelay ? WARM_UP_MS : WARM_UP_WITHOUT_MS);
    if (scenario.partitioned && withRelay) await addOldPartitions(url, round);
    const before = relay && usageOf(relay.pid);
    const reader = scenario.partitioned ? holdReader(url, ms * READER_SHARE) : undefined;
    const times = await writeFor(url, ms);
    await reader;
    const used = relay && before ? usageOf(relay.pid).cpuSeconds - before.cpuSeconds : 0;
    const left = scenario.partitioned ? await partitionCount(url) : 0;
    const dropped = scenario.partitioned && withRelay ? OLD_PARTITIONS + 1 - left : 0;
    if (scenario.partitioned && withRelay)
      await until(async () => (await partitionCount(url)) === 1, { timeoutMs: 60_000, what: 'the drops' });
    return { times, cpuPercent: (used / seconds) * 100, dropped };
  } finally {
    relay?.kill('SIGTERM');
    await relay?.exit;
  }
}

const figure = (value: number): string => value.toFixed(2).padStart(8);

async function measure(serverUrl: string, name: string, scenario: Scenario): Promise<void> {
  const { env, partitioned } = scenario;
  const backlog = await fillBacklog(serverUrl, {
    events: 0,
    keys: 1,
    env: { BROKER: 'stdout', ROUTE_TOPIC: 'bench', ...env },
    ...(partitioned && { prepare: PARTITIONED }),
  });
  try {
    const phases: { without: Phase; with: Phase }[] = [];
    for (let round = 0; round < rounds; round++) {
      const without = await phase(backlog, scenario, round, false);
      phases.push({ without, with: await phase(backlog, scenario, round, true) });
    }
    const without = phases.flatMap((round) => round.without.times);
    const relayed = phases.flatMap((round) => round.with.times);
    const ratios = phases.map(
      (round) => quantile(round.with.times, 0.99) / quantile(round.without.times, 0.99),
    );
    const row = [
      quantile(without, 0.5),
      quantile(without, 0.99),
      quantile(relayed, 0.5),
      quantile(relayed, 0.99),
      quantile(relayed, 0.99) / quantile(without, 0.99),
      quantile(ratios, 0.5),
      phases.reduce((sum, round) => sum + round.with.cpuPercent, 0) / phases.length,
      phases.reduce((sum, round) => sum + round.with.dropped, 0),
    ];
    console.log(`${name.padEnd(16)}${row.map(figure).join('')}`);
  } finally {
    await backlog.drop();
  }
}

execFileSync('npm', ['run', '--silent', 'build'], { stdio: 'inherit' });
// What it starts inherits it.
if (values.pin) pin(process.pid, DATABASE_CORE);
const postgres = await startPostgres({ settings: { max_wal_size: '8GB', shared_buffers: '512MB' } });
try {
  console.log(
    `${CONNECTIONS} writers, ${rate} inserts/s, ${rounds} times ${seconds} s with and without the relay; ms`,
  );
  console.log(
    `${''.padEnd(16)}${['p50 no', 'p99 no', 'p50 yes', 'p99 yes', 'ratio', 'median', '% CPU', 'dropped'].map((title) => title.padStart(8)).join('')}`,
  );
  for (const name of values.only.split(',')) {
    const scenario = SCENARIOS[name];
    if (!scenario)
      throw new Error(`no such scenario: ${name}; there are ${Object.keys(SCENARIOS).join(', ')}`);
    await measure(postgres.url, name, scenario);
  }
} finally {
  await postgres.remove();
}
