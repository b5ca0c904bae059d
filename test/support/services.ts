import { startKafka } from '../../src/demo/services/kafka.ts';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import { startRabbitmq } from '../../src/demo/services/rabbitmq.ts';
import { dockerAnswers, kafkaInDocker, postgresInDocker, rabbitmqInDocker } from './docker.ts';

/**
 * The servers that tests share, each found in this order: its URL in the environment, the servers of the test run
 * that this file belongs to (TEST_SERVICES, set by `scripts/test.ts`), a Docker engine, a native one of our own.
 * Nothing available throws with what to install. A file that runs alone ends what it started when it ends.
 */
export type ServiceName = 'postgres' | 'kafka' | 'rabbitmq';

export interface Service {
  /** PostgreSQL: superuser's URL; RabbitMQ: amqp URL; Kafka: host:port, comma-separated. */
  readonly url: string;
  /** Where it came from, for the log of the test run. */
  readonly origin: 'environment' | 'test run' | 'docker' | 'native';
  remove(): Promise<void>;
}

const VARIABLES: Readonly<Record<ServiceName, string>> = {
  postgres: 'TEST_POSTGRES_URL',
  kafka: 'TEST_KAFKA_BROKERS',
  rabbitmq: 'TEST_RABBITMQ_URL',
};

const nothingToRemove = async (): Promise<void> => await Promise.resolve();

const started = new Map<ServiceName, Promise<Service>>();

async function once(name: ServiceName): Promise<Service> {
  // A series of long runs names a server of its own for each.
  if (process.env[VARIABLES[name]]) return await findService(name);
  const known = started.get(name) ?? findService(name);
  started.set(name, known);
  return await known;
}

export async function findService(name: ServiceName, env = process.env): Promise<Service> {
  const given = env[VARIABLES[name]];
  if (given !== undefined && given !== '')
    return { url: given, origin: 'environment', remove: nothingToRemove };
  const run = env['TEST_SERVICES'];
  if (run !== undefined)
    return { url: await askTestRun(run, name), origin: 'test run', remove: nothingToRemove };
  return await startService(name);
}

/** Starts one, without looking for one that is there. */
async function startService(name: ServiceName): Promise<Service> {
  if (await dockerAnswers()) return { ...(await IN_DOCKER[name]()), origin: 'docker' };
  return { ...(await NATIVE[name]()), origin: 'native' };
}

type Starter = () => Promise<{ url: string; remove(): Promise<void> }>;

const IN_DOCKER: Readonly<Record<ServiceName, Starter>> = {
  postgres: postgresInDocker,
  kafka: kafkaInDocker,
  rabbitmq: rabbitmqInDocker,
};

const NATIVE: Readonly<Record<ServiceName, Starter>> = {
  postgres: async () => {
    const server = await startPostgres({ settings: { max_connections: '200' } });
    return { url: server.url, remove: async () => await server.remove() };
  },
  kafka: async () => {
    const server = await startKafka();
    return { url: server.brokers.join(','), remove: async () => await server.remove() };
  },
  rabbitmq: async () => {
    const server = await startRabbitmq();
    return { url: server.url, remove: async () => await server.remove() };
  },
};

async function askTestRun(run: string, name: ServiceName): Promise<string> {
  const response = await fetch(`${run}/${name}`);
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return text;
}

export async function postgresService(): Promise<{ url: string }> {
  return await once('postgres');
}

export async function kafkaService(): Promise<{ brokers: string[] }> {
  const { url } = await once('kafka');
  return { brokers: url.split(',') };
}

export async function rabbitmqService(): Promise<{ url: string }> {
  return await once('rabbitmq');
}
