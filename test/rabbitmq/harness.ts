import type { RabbitmqConfig } from '../../src/config/config.ts';
import { RelayError } from '../../src/errors/errors.ts';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import type { Outcome, Publisher } from '../../src/pipeline/publish/publisher.ts';
import { createRabbitmqPublisher } from '../../src/pipeline/publish/rabbitmq/publisher.ts';
import { uniqueName } from '../support/names.ts';
import { until } from '../support/until.ts';

export function rabbitmqConfig(url: string, over: Partial<RabbitmqConfig> = {}): RabbitmqConfig {
  return {
    kind: 'rabbitmq',
    urls: () => [url],
    exchange: undefined,
    exchangeIsConstant: true,
    exchangeType: 'topic',
    declare: false,
    routingKey: undefined,
    window: 100,
    confirmTimeoutMs: 30_000,
    tls: undefined,
    auth: 'plain',
    ...over,
  };
}

let seq = 0;

/** A message of its own key; the publisher knows nothing of the row but its number. */
export function message(exchange: string, over: Partial<Message> = {}): Message {
  seq++;
  const key = over.key === undefined ? `key-${seq}` : over.key;
  return {
    event: { seq, xid: 1 } as Message['event'],
    destination: exchange,
    key,
    routingKey: key ?? '',
    id: uniqueName('id'),
    type: 'order.placed',
    contentType: 'application/json',
    timestampMs: 1_700_000_000_123,
    headers: undefined,
    body: Buffer.from(`{"n": ${seq}}`),
    sizeBytes: 100,
    ...over,
  };
}

export function messages(exchange: string, count: number): Message[] {
  return Array.from({ length: count }, () => message(exchange));
}

/** A publisher and everything that it said. */
export class Harness {
  readonly publisher: Publisher;
  readonly connections: { readonly connected: boolean; readonly reason: string }[] = [];
  readonly fatal: Error[] = [];
  roomCalls = 0;

  constructor(config: RabbitmqConfig) {
    this.publisher = createRabbitmqPublisher(config, {
      onRoom: () => this.roomCalls++,
      onFatal: (error) => this.fatal.push(error),
      onConnection: (connected, reason) => this.connections.push({ connected, reason }),
    });
  }

  static async connected(config: RabbitmqConfig): Promise<Harness> {
    const harness = new Harness(config);
    await harness.publisher.connect(AbortSignal.timeout(30_000));
    return harness;
  }

  /** Hands over as there is room; the outcomes in the order of the messages. One outcome too many throws. */
  async send(all: readonly Message[], timeoutMs = 20_000): Promise<Outcome[]> {
    const outcomes = this.handOver(await this.whenRoom(all.length, timeoutMs), all);
    await until(() => outcomes.size === all.length, { what: 'an outcome for each message', timeoutMs });
    return all.map((each) => outcomes.get(each) as Outcome);
  }

  /** Without waiting for outcomes. */
  handOver(_room: number, all: readonly Message[]): Map<Message, Outcome> {
    const outcomes = new Map<Message, Outcome>();
    this.publisher.publish(all, (each, outcome) => {
      if (outcomes.has(each)) throw new Error(`a second outcome for ${each.id}`);
      outcomes.set(each, outcome);
    });
    return outcomes;
  }

  async whenRoom(count = 1, timeoutMs = 20_000): Promise<number> {
    await until(() => this.publisher.room() >= count, { what: `room for ${count}`, timeoutMs });
    return this.publisher.room();
  }

  /** Sends again what was unknown, or refused for a while, until all is durable. Returns how many rounds it took. */
  async sendUntilDurable(all: readonly Message[], timeoutMs = 60_000): Promise<number> {
    let rest = all;
    for (let round = 1; ; round++) {
      const outcomes = await this.send(rest, timeoutMs);
      rest = rest.filter((_, at) => outcomes[at]?.kind !== 'durable');
      if (rest.length === 0) return round;
    }
  }

  async close(): Promise<void> {
    await this.publisher.close(1_000);
  }
}

/** `durable` or the code of each outcome. */
export function codes(outcomes: readonly Outcome[]): string[] {
  return outcomes.map((outcome) => (outcome.kind === 'durable' ? 'durable' : outcome.code));
}

export function isStop(code: string): (error: unknown) => boolean {
  return (error) =>
    error instanceof RelayError &&
    error.consequence === 'stop' &&
    error.code === code &&
    error.advice.length > 10;
}
