import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Producer } from '@platformatic/kafka';
import { connect } from 'amqplib';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { fillBacklog, query } from './backlog.ts';
import type { BenchTarget } from './broker.ts';

/** Payload of about 300 bytes, as PostgreSQL prints the backlog's. */
function payload(n: number): Buffer {
  return Buffer.from(`{"n": ${n}, "fill": "${'x'.repeat(270)}"}`);
}

/** The stock receiver alone, to /dev/null. Events a second. */
export async function pgRecvlogical(
  serverUrl: string,
  options: { events: number; keys: number; env: Readonly<Record<string, string>> },
): Promise<number> {
  const backlog = await fillBacklog(serverUrl, options);
  const rows = await query(backlog.url, 'select pg_current_wal_flush_lsn()::text as lsn');
  const startMs = performance.now();
  const connection = ['-d', backlog.url, '-S', backlog.name, '--start', '-f', '/dev/null'];
  const plugin = [
    '-E',
    rows[0]?.['lsn'] ?? '',
    '-o',
    'proto_version=1',
    '-o',
    'publication_names=outbox_relay',
  ];
  await promisify(execFile)('pg_recvlogical', connection.concat(plugin));
  const seconds = (performance.now() - startMs) / 1000;
  await backlog.drop();
  return options.events / seconds;
}

interface Alone {
  readonly eventsPerSecond: number;
  readonly cpuMicrosPerEvent: number;
}

interface Load {
  readonly events: number;
  readonly keys: number;
  /** Messages of a call: as many as the relay sends at once. */
  readonly batch: number;
}

const HEADERS = {
  id: '3b241101-e2bb-4255-8caf-4136c566a962',
  eventType: 'Filled',
  contentType: 'application/json',
};

/** Calls `send` with a portion after the other, as long as there are events; those are made before the time runs. */
async function inPortions<T>(
  { events, keys, batch }: Load,
  message: (key: string, value: Buffer) => T,
  send: (messages: T[]) => Promise<unknown>,
): Promise<Alone> {
  const messages = Array.from({ length: events }, (_, i) =>
    message(`key-${((i + 1) * 7919) % keys}`, payload(i + 1)),
  );
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  for (let from = 0; from < events; from += batch) await send(messages.slice(from, from + batch));
  const seconds = (performance.now() - startMs) / 1000;
  const used = process.cpuUsage(cpu);
  return { eventsPerSecond: events / seconds, cpuMicrosPerEvent: (used.user + used.system) / events };
}

/** `kafkajs` alone from memory: sendBatch, acks=all. */
export async function kafkajsAlone(brokers: string[], target: BenchTarget, load: Load): Promise<Alone> {
  const producer = new Kafka({ brokers, logLevel: logLevel.NOTHING }).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  try {
    return await inPortions(
      load,
      (key, value) => ({ key, value, headers: HEADERS }),
      async (messages) => {
        const topicMessages = [{ topic: target.destination, messages }];
        await producer.sendBatch({ acks: -1, topicMessages });
      },
    );
  } finally {
    await producer.disconnect();
  }
}

function asBuffer(text?: string): Buffer {
  return Buffer.from(text ?? '');
}

/** `@platformatic/kafka` alone from memory: send, acks=all. */
export async function platformaticAlone(brokers: string[], target: BenchTarget, load: Load): Promise<Alone> {
  const producer = new Producer<string, Buffer, string, string>({
    clientId: 'bench',
    bootstrapBrokers: brokers,
    serializers: { key: asBuffer, value: (value) => value, headerKey: asBuffer, headerValue: asBuffer },
  });
  try {
    return await inPortions(
      load,
      (key, value) => ({ topic: target.destination, key, value, headers: HEADERS }),
      async (messages) => await producer.send({ acks: -1, messages }),
    );
  } finally {
    await producer.close();
  }
}

/** What the relay sends of each event. */
const AMQP_PROPERTIES = {
  persistent: true,
  mandatory: true,
  contentType: HEADERS.contentType,
  type: HEADERS.eventType,
};

/** `amqplib` alone with confirms and a sliding window. */
export async function amqplibAlone(
  url: string,
  target: BenchTarget,
  options: { events: number; keys: number; window: number },
): Promise<{ eventsPerSecond: number; cpuMicrosPerEvent: number }> {
  const connection = await connect(url);
  const channel = await connection.createConfirmChannel();
  const bodies = Array.from({ length: options.events }, (_, i) => payload(i + 1));
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  let outstanding = 0;
  let wake: (() => void) | undefined;
  const confirmed = (error: unknown): void => {
    if (error) throw new Error('a publish was refused');
    outstanding--;
    wake?.();
  };
  for (const [i, body] of bodies.entries()) {
    while (outstanding >= options.window) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    outstanding++;
    const properties = {
      ...AMQP_PROPERTIES,
      messageId: HEADERS.id,
      timestamp: Math.floor(Date.now() / 1000),
    };
    channel.publish(
      target.destination,
      `key-${((i + 1) * 7919) % options.keys}`,
      body,
      properties,
      confirmed,
    );
  }
  await channel.waitForConfirms();
  const seconds = (performance.now() - startMs) / 1000;
  const used = process.cpuUsage(cpu);
  await connection.close();
  return {
    eventsPerSecond: options.events / seconds,
    cpuMicrosPerEvent: (used.user + used.system) / options.events,
  };
}
