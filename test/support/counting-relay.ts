import { loadConfig } from '../../src/config/load.ts';
import { createLogger } from '../../src/observe/log.ts';
import {
  DURABLE,
  type OnOutcome,
  type Publisher,
  type PublisherEvents,
} from '../../src/pipeline/publish/publisher.ts';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import { Relay } from '../../src/relay.ts';

/** A relay whose broker takes everything at once and keeps nothing but counts; prints them when it is drained. */
class CountingPublisher implements Publisher {
  readonly laneLimit = { events: 1_000, bytes: 1_000_000 };
  readonly maxPublishBytes = 1_000_000;
  received = 0;
  outOfOrder = 0;
  private readonly lastSeq = new Map<string | null, number>();
  private readonly events: PublisherEvents;

  constructor(events: PublisherEvents) {
    this.events = events;
  }

  async connect(): Promise<void> {
    this.events.onConnection(true, 'counting');
    return await Promise.resolve();
  }

  laneOf({ key }: Message): string {
    return String(key);
  }

  room(): number {
    return 5_000;
  }

  publish(messages: readonly Message[], onOutcome: OnOutcome): void {
    setImmediate(() => {
      for (const message of messages) {
        this.received++;
        if (message.event.seq <= (this.lastSeq.get(message.key) ?? 0)) this.outOfOrder++;
        this.lastSeq.set(message.key, message.event.seq);
        onOutcome(message, DURABLE);
      }
      this.events.onRoom();
    });
  }

  async close(): Promise<void> {
    return await Promise.resolve();
  }
}

let publisher: CountingPublisher | undefined;
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());
const config = loadConfig(process.env);
const log = createLogger({ ...config.log, write: (line) => void process.stderr.write(line), now: Date.now });
await new Relay({
  config,
  log,
  version: 'test',
  stop: stop.signal,
  createPublisher: (_config, events) => Promise.resolve((publisher = new CountingPublisher(events))),
}).run();
const { received, outOfOrder } = publisher ?? { received: 0, outOfOrder: 0 };
const peakRssMb = Math.round(process.resourceUsage().maxRSS / 1024);
process.stdout.write(`${JSON.stringify({ received, outOfOrder, peakRssMb })}\n`);
process.exit(0);
