import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ServiceFolder } from '../../../src/demo/services/folder.ts';
import { installOnce, run } from '../../../src/demo/services/install.ts';
import { freePort } from '../../../src/demo/services/ports.ts';
import { ServerProcess } from '../../../src/demo/services/server-process.ts';
import { until } from '../../support/until.ts';
import { query, type Backlog } from '../backlog.ts';
import { kafkaBenchTarget, type BenchTarget } from '../broker.ts';
import type { Contender, Running } from '../contender.ts';

export const DEBEZIUM_VERSION = '3.7.0.Final';
export const CONNECT_VERSION = '4.1.2';

const COPY = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies';
const CONNECTOR = 'outbox';

const DEPENDENCIES = [
  ['org.apache.kafka', 'connect-runtime', CONNECT_VERSION],
  ['io.debezium', 'debezium-connector-postgres', DEBEZIUM_VERSION],
  ['org.slf4j', 'slf4j-simple', '1.7.36'],
] as const;

async function classPath(): Promise<string> {
  const folder = await installOnce(`debezium-${DEBEZIUM_VERSION}-${CONNECT_VERSION}`, async (target) => {
    const dependencies = DEPENDENCIES.map(
      ([group, artifact, version]) =>
        `<dependency><groupId>${group}</groupId><artifactId>${artifact}</artifactId><version>${version}</version></dependency>`,
    );
    writeFileSync(
      join(target, 'pom.xml'),
      `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
       <groupId>outbox-relay</groupId><artifactId>debezium</artifactId><version>1</version>
       <packaging>pom</packaging><dependencies>${dependencies.join('')}</dependencies></project>`,
    );
    await run('mvn', ['-B', '-q', COPY, '-DincludeScope=runtime', '-DoutputDirectory=lib'], { cwd: target });
  });
  return join(folder, 'lib', '*');
}

/** What the figures depend on; printed beside them. The rest is the defaults of Debezium and of Connect. */
export const DEBEZIUM_TUNING: Readonly<Record<string, string>> = {
  'max.queue.size': '32768',
  'max.batch.size': '8192',
  'poll.interval.ms': '10',
  'producer.override.linger.ms': '5',
  'producer.override.batch.size': '262144',
  'producer.override.acks': 'all',
  'producer.override.enable.idempotence': 'true',
};
const JVM_TUNING = ['-Xmx1g', '-XX:+UseParallelGC'];
const WORKER_TUNING: Readonly<Record<string, string>> = { 'offset.flush.interval.ms': '5000' };

export const DEBEZIUM_SETTINGS = [
  ...JVM_TUNING,
  ...Object.entries({ ...WORKER_TUNING, ...DEBEZIUM_TUNING }).map(([name, value]) => `${name}=${value}`),
].join(' ');

function connectorConfig(backlog: Backlog, topic: string): Record<string, string> {
  const { hostname, port, username } = new URL(backlog.url);
  return {
    'connector.class': 'io.debezium.connector.postgresql.PostgresConnector',
    'database.hostname': hostname,
    'database.port': port,
    'database.user': username,
    'database.password': 'postgres',
    'database.dbname': backlog.name,
    'topic.prefix': 'bench',
    'plugin.name': 'pgoutput',
    'slot.name': backlog.name,
    // Inserts alone, as ours reads: other changes would be decoded and sent to be thrown away.
    'publication.name': 'outbox_bench',
    'publication.autocreate.mode': 'disabled',
    'table.include.list': 'public.outbox',
    'snapshot.mode': 'no_data',
    'tombstones.on.delete': 'false',
    'key.converter': 'org.apache.kafka.connect.storage.StringConverter',
    'value.converter': 'org.apache.kafka.connect.storage.StringConverter',
    transforms: 'outbox',
    'transforms.outbox.type': 'io.debezium.transforms.outbox.EventRouter',
    'transforms.outbox.table.fields.additional.placement': 'type:header:eventType',
    'transforms.outbox.route.topic.replacement': topic,
    ...DEBEZIUM_TUNING,
  };
}

/** The outbox event router on a standalone Connect worker, tuned. */
export async function debezium(): Promise<Contender> {
  const jars = await classPath();
  const folders = new Map<string, ServiceFolder>();
  const folderOf = (backlog: Backlog): ServiceFolder => {
    const folder = folders.get(backlog.name) ?? new ServiceFolder('debezium');
    folders.set(backlog.name, folder);
    return folder;
  };
  return {
    name: 'Debezium',
    prepare: async (backlog, target) => {
      await query(backlog.url, `create publication outbox_bench for table outbox with (publish = 'insert')`);
      const aside = await kafkaBenchTarget((target.env['KAFKA_BROKERS'] ?? '').split(','), 1);
      const worker = await startWorker({ jars, folder: folderOf(backlog), backlog, target: aside });
      try {
        await worker.untilRunning();
        // Without a stored position it begins at the end of the log, not at the slot: one event makes it store one.
        await query(
          backlog.url,
          `insert into outbox (aggregatetype, aggregateid, type, payload) values ('bench', 'first', 'Filled', '{}')`,
        );
        const what = "Debezium's first event";
        await until(async () => (await aside.count()) === 1, { timeoutMs: 60_000, what });
      } finally {
        await worker.kill('SIGTERM');
        await aside.drop();
      }
      await query(backlog.url, 'delete from outbox');
    },
    start: async (backlog, target) => await startWorker({ jars, folder: folderOf(backlog), backlog, target }),
    forget: async (backlog) => {
      await folders.get(backlog.name)?.remove();
      folders.delete(backlog.name);
    },
  };
}

interface Worker extends Running {
  untilRunning(): Promise<void>;
}

async function startWorker(worker: {
  jars: string;
  folder: ServiceFolder;
  backlog: Backlog;
  target: BenchTarget;
}): Promise<Worker> {
  const { jars, folder, backlog, target } = worker;
  const port = await freePort();
  const workerConfig: Record<string, string> = {
    'bootstrap.servers': target.env['KAFKA_BROKERS'] ?? '',
    listeners: `http://127.0.0.1:${port}`,
    'key.converter': 'org.apache.kafka.connect.storage.StringConverter',
    'value.converter': 'org.apache.kafka.connect.storage.StringConverter',
    'offset.storage.file.filename': join(folder.path, 'offsets'),
    'connector.client.config.override.policy': 'All',
    'plugin.discovery': 'service_load',
    ...WORKER_TUNING,
  };
  const workerFile = join(folder.path, 'worker.properties');
  const lines = Object.entries(workerConfig).map(([name, value]) => `${name}=${value}\n`);
  writeFileSync(workerFile, lines.join(''));
  const connectorFile = join(folder.path, 'connector.json');
  const connector = { name: CONNECTOR, config: connectorConfig(backlog, target.destination) };
  writeFileSync(connectorFile, JSON.stringify(connector));
  const logging = '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn';
  const main = 'org.apache.kafka.connect.cli.ConnectStandalone';
  const server = await ServerProcess.start({
    folder,
    name: 'connect',
    command: 'java',
    args: [...JVM_TUNING, logging, '-cp', jars, main, workerFile, connectorFile],
  });
  return controls(server, `http://127.0.0.1:${port}/connectors/${CONNECTOR}`);
}

function controls(server: ServerProcess, url: string): Worker {
  const untilState = async (state: string, tasks: number): Promise<void> =>
    await server.untilReady(async () => await isIn(url, state, tasks), 60_000);
  const untilRunning = async (): Promise<void> => await untilState('RUNNING', 1);
  return {
    pid: server.pid,
    kill: async (signal) => await server.stop(signal),
    untilRunning,
    rest: {
      pause: async () => {
        await fetch(`${url}/stop`, { method: 'PUT' });
        await untilState('STOPPED', 0);
      },
      resume: async () => {
        const response = await fetch(`${url}/resume`, { method: 'PUT' });
        if (!response.ok) throw new Error(`Connect did not resume: ${await response.text()}`);
      },
    },
  };
}

async function isIn(url: string, state: string, tasks: number): Promise<boolean> {
  try {
    const response = await fetch(`${url}/status`);
    if (!response.ok) return false;
    const status = (await response.json()) as { connector: { state: string }; tasks: { state: string }[] };
    const failed = status.tasks.find((task) => task.state === 'FAILED');
    if (failed) throw new Error(`Debezium failed: ${JSON.stringify(failed)}`);
    return status.connector.state === state && status.tasks.length === tasks;
  } catch (error) {
    if (error instanceof TypeError) return false; // Nobody listens yet.
    throw error;
  }
}
