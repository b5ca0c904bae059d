import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type ChannelModel, type ConfirmChannel, type ConsumeMessage } from 'amqplib';
import { startRabbitmq, type RabbitmqServer } from '../../../src/demo/services/rabbitmq.ts';
import { bindQueue, type BoundQueue } from '../../support/consume-rabbitmq.ts';
import { until } from '../../support/until.ts';
import { TYPES, unsupported, type Broker, type BrokerRound, type Undo } from './brokers.ts';
import type { Delivered } from './checker.ts';
import { digestOf } from './digest.ts';
import { Line } from './line.ts';

const EXCHANGE_TYPE = 'topic';
/**
 * RabbitMQ 3.10 has not written a new quorum queue down for up to a second: killed then, it comes back with a queue that
 * takes nothing, for ever. Measured: killed after 0.5 s none of them answers, after 1 s all do.
 */
const QUEUE_IS_KEPT_MS = 2_500;

export class RabbitmqBroker implements Broker {
  readonly lines: readonly [Line];
  private readonly server: RabbitmqServer;
  private openedMs = 0;

  private constructor(server: RabbitmqServer, line: Line) {
    this.server = server;
    this.lines = [line];
  }

  static async open(): Promise<RabbitmqBroker> {
    const server = await startRabbitmq();
    return new RabbitmqBroker(server, await Line.start(`127.0.0.1:${server.port}`));
  }

  async openRound(prefix: string): Promise<BrokerRound> {
    const round = await RabbitmqRound.open(this.server.url, prefix, this.lines[0].url(this.server.url));
    this.openedMs = performance.now();
    return round;
  }

  pids(): number[] {
    return [this.server.pid()];
  }

  async kill(): Promise<void> {
    await sleep(Math.max(0, this.openedMs + QUEUE_IS_KEPT_MS - performance.now()));
    await this.server.stop('SIGKILL');
  }

  async restore(): Promise<void> {
    await this.server.start();
  }

  async setFull(full: boolean): Promise<void> {
    const limit = full ? '1000GB' : '50MB';
    await until(async () => await this.server.ctl('set_disk_free_limit', limit).then(() => true), {
      what: 'RabbitMQ to take a limit of the disk',
      timeoutMs: 30_000,
    });
  }

  async remove(): Promise<void> {
    await this.server.remove();
    await this.lines[0].close();
  }
}

class RabbitmqRound implements BrokerRound {
  readonly env: Readonly<Record<string, string>>;
  private readonly url: string;
  private readonly prefix: string;
  private readonly queues: readonly BoundQueue[];

  private constructor(url: string, prefix: string, relayUrl: string, queues: readonly BoundQueue[]) {
    this.url = url;
    this.prefix = prefix;
    this.queues = queues;
    this.env = { BROKER: 'rabbitmq', RABBITMQ_URL: relayUrl, ROUTE_TOPIC: `${prefix}.\${aggregatetype}` };
  }

  static async open(url: string, prefix: string, relayUrl: string): Promise<RabbitmqRound> {
    const queues = await Promise.all(
      TYPES.map(
        async (type) =>
          await bindQueue({ url, exchange: `${prefix}.${type}`, arguments: { 'x-queue-type': 'quorum' } }),
      ),
    );
    return new RabbitmqRound(url, prefix, relayUrl, queues);
  }

  makeLate(): Promise<void> {
    return unsupported();
  }

  moveLeader(): Promise<Undo> {
    return unsupported();
  }

  async removeBinding(target: number): Promise<Undo> {
    const { queue, exchange } = this.place(target);
    await this.onChannel(async (channel) => void (await channel.unbindQueue(queue, exchange, '#')));
    return async () =>
      await this.onChannel(async (channel) => void (await channel.bindQueue(queue, exchange, '#')));
  }

  async removeExchange(target: number): Promise<Undo> {
    const { queue, exchange } = this.place(target);
    await this.onChannel(async (channel) => void (await channel.deleteExchange(exchange)));
    return async () =>
      await this.onChannel(async (channel) => {
        await channel.assertExchange(exchange, EXCHANGE_TYPE, { durable: true });
        await channel.bindQueue(queue, exchange, '#');
      });
  }

  private place(target: number): { queue: string; exchange: string } {
    const index = target % TYPES.length;
    return { queue: this.queues[index]?.queue ?? '', exchange: `${this.prefix}.${TYPES[index]}` };
  }

  /** A connection for each: the broker may have been away since the last one. */
  private async onChannel(action: (channel: ConfirmChannel) => Promise<void>): Promise<void> {
    const attempt = async (): Promise<true> => {
      const connection: ChannelModel = await connect(this.url);
      connection.on('error', () => undefined);
      try {
        const channel = await connection.createConfirmChannel();
        channel.on('error', () => undefined);
        await action(channel);
        return true;
      } finally {
        await connection.close().catch(() => undefined);
      }
    };
    await until(attempt, { what: 'RabbitMQ to change its topology', timeoutMs: 30_000 });
  }

  async read(): Promise<Delivered[]> {
    const logs = await Promise.all(
      this.queues.map(async (bound, index) => {
        const destination = TYPES[index] ?? '';
        const messages = await readWhole(bound);
        return messages.map((message) => toDelivered(destination, message));
      }),
    );
    return logs.flat();
  }

  async drop(): Promise<void> {
    await Promise.all(this.queues.map(async ({ drop }) => await drop()));
    await this.onChannel(async (channel) => {
      for (const type of TYPES) await channel.deleteExchange(`${this.prefix}.${type}`);
    });
  }
}

/** A quorum queue counts what it holds a moment late: it is empty when it was found so twice. */
async function readWhole(bound: BoundQueue): Promise<ConsumeMessage[]> {
  const messages: ConsumeMessage[] = [];
  let empty = 0;
  await until(
    async () => {
      const more = await bound.readAll(30_000);
      messages.push(...more);
      empty = more.length === 0 ? empty + 1 : 0;
      return empty === 2;
    },
    { what: `${bound.queue} to be read`, timeoutMs: 60_000, intervalMs: 100 },
  );
  return messages;
}

function toDelivered(destination: string, { properties, fields, content }: ConsumeMessage): Delivered {
  const headers = (properties.headers ?? {}) as Record<string, unknown>;
  const trace = headers['trace'];
  return {
    id: String(properties.messageId),
    destination,
    key: fields.routingKey,
    digest: digestOf({
      type: String(properties.type),
      trace: typeof trace === 'string' ? trace : '',
      body: content,
    }),
    log: destination,
    // Brokers before 3.12 note no time of their own.
    atMs: undefined,
  };
}
