import { execFile } from 'node:child_process';
import { Kafka, logLevel } from 'kafkajs';
import { Client } from 'pg';
import { ServiceFolder } from '../../src/demo/services/folder.ts';
import { freePort } from '../../src/demo/services/ports.ts';
import { greets } from '../../src/demo/services/probe.ts';
import { ServerProcess } from '../../src/demo/services/server-process.ts';

// Long enough to fetch an image.
const START_TIMEOUT_MS = 300_000;

let answer: Promise<boolean> | undefined;

/** Is there an engine, not only the client? */
export async function dockerAnswers(): Promise<boolean> {
  answer ??= new Promise((resolve) => {
    execFile('docker', ['version', '--format', '{{.Server.Version}}'], { timeout: 5000 }, (error) =>
      resolve(error === null),
    );
  });
  return await answer;
}

interface Container {
  readonly name: string;
  readonly port: number;
  readonly containerPort: number;
  readonly env: readonly string[];
  readonly image: string;
  readonly command?: readonly string[];
  readonly check: () => Promise<boolean>;
}

/** The client stays in the foreground, so that the container ends (and is removed) with it. */
async function runContainer(container: Container): Promise<() => Promise<void>> {
  const { name, port, containerPort, env, image, command = [], check } = container;
  const folder = new ServiceFolder(`docker-${name}`);
  try {
    const publish = ['-p', `127.0.0.1:${port}:${containerPort}`];
    const process = await ServerProcess.start({
      folder,
      name,
      command: 'docker',
      args: ['run', '--rm', ...publish, ...env.flatMap((line) => ['-e', line]), image, ...command],
      killSignal: 'SIGTERM',
    });
    const remove = async (): Promise<void> => {
      await process.stop('SIGTERM');
      await folder.remove();
    };
    await process.untilReady(check, START_TIMEOUT_MS);
    return remove;
  } catch (error) {
    await folder.remove();
    throw error;
  }
}

export async function postgresInDocker(): Promise<{ url: string; remove(): Promise<void> }> {
  const port = await freePort();
  const url = `postgresql://postgres@127.0.0.1:${port}/postgres`;
  const settings = [
    'wal_level=logical',
    'max_replication_slots=20',
    'max_wal_senders=20',
    'max_connections=200',
  ];
  const remove = await runContainer({
    name: 'postgres',
    port,
    containerPort: 5432,
    image: 'postgres:18',
    env: ['POSTGRES_HOST_AUTH_METHOD=trust'],
    command: settings.flatMap((setting) => ['-c', setting]),
    // The image first runs a server for its own set-up, but without TCP.
    check: async () => await answersQuery(url),
  });
  return { url, remove };
}

async function answersQuery(url: string): Promise<boolean> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 2000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query('SELECT 1');
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

export async function kafkaInDocker(): Promise<{ url: string; remove(): Promise<void> }> {
  const port = await freePort();
  const url = `127.0.0.1:${port}`;
  const remove = await runContainer({
    name: 'kafka',
    port,
    containerPort: 9092,
    image: 'apache/kafka:4.1.0',
    env: [
      'KAFKA_NODE_ID=1',
      'KAFKA_PROCESS_ROLES=broker,controller',
      'KAFKA_LISTENERS=PLAINTEXT://0.0.0.0:9092,CONTROLLER://localhost:9093',
      `KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:${port}`,
      'KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER',
      'KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
      'KAFKA_CONTROLLER_QUORUM_VOTERS=1@localhost:9093',
      'KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR=1',
      'KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS=0',
      'KAFKA_AUTO_CREATE_TOPICS_ENABLE=false',
    ],
    check: async () => await describesCluster(url),
  });
  return { url, remove };
}

async function describesCluster(broker: string): Promise<boolean> {
  const client = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING, retry: { retries: 0 } });
  const admin = client.admin();
  try {
    await admin.connect();
    return (await admin.describeCluster()).brokers.length > 0;
  } catch {
    return false;
  } finally {
    await admin.disconnect();
  }
}

export async function rabbitmqInDocker(): Promise<{ url: string; remove(): Promise<void> }> {
  const port = await freePort();
  const remove = await runContainer({
    name: 'rabbitmq',
    port,
    containerPort: 5672,
    image: 'rabbitmq:4',
    // The broker's own guest may connect from inside the container only.
    env: ['RABBITMQ_DEFAULT_USER=test', 'RABBITMQ_DEFAULT_PASS=test'],
    check: async () => await greets(port),
  });
  return { url: `amqp://test:test@127.0.0.1:${port}`, remove };
}
