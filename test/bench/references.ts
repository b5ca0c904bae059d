import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
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

/** `kafkajs` alone from memory: sendBatch of as many messages as the relay sends at once, acks=all. */
export async function kafkajsAlone(
  brokers: string[],
  target: BenchTarget,
  options: { events: number; keys: number; batch: number },
): Promise<{ eventsPerSecond: number; cpuMicrosPerEvent: number }> {
  const producer = new Kafka({ brokers, logLevel: logLevel.NOTHING }).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  const messages = Array.from({ length: options.events }, (_, i) => ({
    key: `key-${((i + 1) * 7919) % options.keys}`,
    value: payload(i + 1),
    headers: {
      id: '3b241101-e2bb-4255-8caf-4136c566a962',
      eventType: 'Filled',
      contentType: 'application/json',
    },
  }));
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  for (let from = 0; from < messages.length; from += options.batch) {
    const topicMessages = [
      { topic: target.destination, messages: messages.slice(from, from + options.batch) },
    ];
    await producer.sendBatch({ acks: -1, topicMessages });
  }
  const seconds = (performance.now() - startMs) / 1000;
  const used = process.cpuUsage(cpu);
  await producer.disconnect();
  return {
    eventsPerSecond: options.events / seconds,
    cpuMicrosPerEvent: (used.user + used.system) / options.events,
  };
}

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
    const properties = { persistent: true, mandatory: true, messageId: String(i), type: 'Filled' };
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
