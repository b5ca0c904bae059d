import { startKafka } from '../../src/demo/services/kafka.ts';
import { startPostgres } from '../../src/demo/services/postgres.ts';
import { startRabbitmq } from '../../src/demo/services/rabbitmq.ts';
import { outage, type OutageResult } from './outage.ts';

/** Small enough to be full within seconds: what comes after that has to wait in the database. */
export const MAX_IN_FLIGHT_EVENTS = 2_000;

const env = { MAX_IN_FLIGHT_EVENTS: String(MAX_IN_FLIGHT_EVENTS) };

/** A broker of our own is killed, is away for so long, and comes back. */
export async function kafkaOutage(seconds: number): Promise<OutageResult> {
  const kafka = await startKafka();
  try {
    process.env['TEST_KAFKA_BROKERS'] = kafka.brokers.join(',');
    return await outage({
      broker: 'kafka',
      seconds,
      env,
      stop: async () => await kafka.stop('SIGKILL'),
      start: async () => await kafka.start(),
    });
  } finally {
    await kafka.remove();
  }
}

export async function rabbitmqOutage(seconds: number): Promise<OutageResult> {
  const rabbitmq = await startRabbitmq();
  try {
    process.env['TEST_RABBITMQ_URL'] = rabbitmq.url;
    return await outage({
      broker: 'rabbitmq',
      seconds,
      env,
      stop: async () => await rabbitmq.stop('SIGKILL'),
      start: async () => await rabbitmq.start(),
    });
  } finally {
    await rabbitmq.remove();
  }
}

/** PostgreSQL crashes several times; half of the writers commit with synchronous_commit=off. */
export async function postgresOutage(seconds: number, times: number): Promise<OutageResult> {
  // A writer's commit stays in memory for up to three times this long, so that a crash takes some back.
  const postgres = await startPostgres({ settings: { wal_writer_delay: '1s', max_connections: '100' } });
  try {
    return await outage({
      broker: 'kafka',
      seconds,
      times,
      env,
      serverUrl: postgres.url,
      halfAsynchronous: true,
      stop: async () => await postgres.stop('immediate'),
      start: async () => await postgres.start(),
    });
  } finally {
    await postgres.remove();
  }
}
