import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { CommandContext } from '../cli/command.ts';
import type { Config } from '../config/config.ts';
import { loadConfig } from '../config/load.ts';
import { RelayError } from '../errors/errors.ts';
import { messageOf } from '../errors/thrown.ts';
import { createLogger } from '../observe/log.ts';
import { connect, disconnect } from '../postgres/connect.ts';
import { migrate } from '../postgres/migrate.ts';
import { Relay, type RelayEnd } from '../relay.ts';
import { version } from '../version.ts';
import { planBroker, relayEnvironment, startBroker, type BrokerPlan } from './broker.ts';
import { openConsumer, type Consumer, type OpenConsumer } from './consumers/consumer.ts';
import type { DemoOptions } from './options.ts';
import { Arrivals, reckon } from './reckoning.ts';
import { freePort } from './services/ports.ts';
import { startPostgres } from './services/postgres.ts';
import { readRecord, Shop } from './shop.ts';
import { Screen } from './terminal/screen.ts';
import { View } from './terminal/view.ts';

export interface DemoContext extends Pick<CommandContext, 'env' | 'signal' | 'stdout' | 'stderr'> {
  /** Another consumer, for tests of the summary. */
  readonly openConsumer?: OpenConsumer;
}

/** Nothing was delivered for this long although the outbox is not empty: the summary says so instead of waiting on. */
const STALLED_MS = 30_000;
const POLL_MS = 25;

/**
 * A database, a shop, the relay and a consumer, in one terminal; at the end the database's record is compared with
 * what the consumer saw. The relay runs in this process, since the screen shows each event at the moment at which it
 * is durable, which only its observer knows; `run` starts the same class.
 *
 * Resolves with the exit code: 0 when every committed event was delivered once, in order, and nothing else. Everything
 * that was started is ended and removed before, also after an error; after a second Ctrl-C the services' guards do it.
 */
export async function runDemo(options: DemoOptions, context: DemoContext): Promise<number> {
  const screen = new Screen(context);
  const resources = new AsyncDisposableStack();
  try {
    return await new Demo(options, context, screen, resources).run();
  } finally {
    screen.close();
    await resources.disposeAsync();
  }
}

class Demo {
  private readonly options: DemoOptions;
  private readonly context: DemoContext;
  private readonly screen: Screen;
  private readonly resources: AsyncDisposableStack;
  private readonly view: View;
  /** Of topic and exchange: a broker that is given may be shared with other demos. */
  private readonly channel = `outbox-relay-demo-${randomBytes(4).toString('hex')}`;
  private readonly arrivals = new Arrivals();
  /** A failure that ends the demo wherever it is. */
  private readonly failure = Promise.withResolvers<never>();

  constructor(options: DemoOptions, context: DemoContext, screen: Screen, resources: AsyncDisposableStack) {
    this.options = options;
    this.context = context;
    this.screen = screen;
    this.resources = resources;
    this.view = new View(screen);
    // Awaited in races only; a failure while none runs is met by the next one.
    this.failure.promise.catch(() => undefined);
  }

  async run(): Promise<number> {
    const { signal } = this.context;
    this.view.title(`outbox-relay ${version()} demo`);
    const hint = (): void => this.screen.note('Stopping; Ctrl-C again ends at once.');
    signal.addEventListener('abort', hint, { once: true });
    const config = await this.startServices();
    if (signal.aborted) return 0;
    const client = await this.openDatabase(config);
    const consumer = await this.openConsumer(config);
    const relay = await this.startRelay(config, consumer);
    signal.removeEventListener('abort', hint);
    this.view.started();

    const shop = await this.sell(config, relay.relay);
    const drained = await this.untilDrained(client);
    relay.stop.abort('drain');
    const { unknown } = await this.orFailure(relay.end);
    if (drained) await this.orFailure(consumer.finish());
    const record = await readRecord(client);
    const reckoning = reckon({ ...record, rolledBack: shop.rolledBack, arrivals: this.arrivals });
    this.view.summary(reckoning, { consumer: consumer.name, unknown });
    return reckoning.consistent && unknown === 0 ? 0 : 1;
  }

  private async startServices(): Promise<Config> {
    const { options, context, view, channel } = this;
    const plan = planBroker(options, context.env);
    const httpPort = await freePort();
    const environment = { plan, httpPort, channel, logLevel: context.env['LOG_LEVEL'] };
    // Looked through before anything is started: a mistake in it must not cost the time of a start.
    const placeholder = {
      databaseUrl: 'postgresql://127.0.0.1/',
      brokerUrl: plan.givenUrl ?? PLACEHOLDERS[plan.kind],
    };
    loadConfig(relayEnvironment({ ...environment, ...placeholder }));
    const onProgress = (text: string): void => view.starting(text);
    const [postgres, broker] = await Promise.allSettled([
      // Every account of the machine reaches 127.0.0.1, and a superuser may start programs.
      startPostgres({ onProgress, auth: 'scram-sha-256', password: randomBytes(18).toString('hex') }),
      startBroker(plan, onProgress),
    ]);
    if (postgres.status === 'fulfilled') this.resources.defer(async () => await postgres.value.remove());
    if (broker.status === 'fulfilled') this.resources.defer(broker.value.remove);
    if (postgres.status === 'rejected') throw unavailable('PostgreSQL', postgres.reason);
    if (broker.status === 'rejected') throw unavailable(NAMES[plan.kind], broker.reason);
    view.ready('PostgreSQL', postgres.value.url);
    const urls = { databaseUrl: postgres.value.url, brokerUrl: broker.value.url };
    const config = loadConfig(relayEnvironment({ ...environment, ...urls }));
    view.ready(NAMES[plan.kind], describeBroker(plan, config, channel));
    return config;
  }

  private async openDatabase(config: Config): Promise<Client> {
    const client = await connect(config.database.connection(), {
      applicationName: 'outbox-relay demo',
      signal: new AbortController().signal,
    });
    this.resources.defer(async () => await disconnect(client));
    const { applied } = await migrate(client, { ...config, adopt: false, dryRun: false });
    await Shop.prepare(client);
    this.view.ready('Migrations', applied.join(', '));
    return client;
  }

  private async openConsumer(config: Config): Promise<Consumer> {
    const open = this.context.openConsumer ?? openConsumer;
    const consumer = await open({
      config,
      channel: this.channel,
      onArrival: (id) => this.arrivals.add(id),
      onFailure: (error) => this.failure.reject(error),
    }).catch((error: unknown) => {
      throw unavailable(NAMES[config.broker.kind], error);
    });
    this.resources.defer(consumer.close);
    return consumer;
  }

  private async startRelay(
    config: Config,
    { createPublisher }: Consumer,
  ): Promise<{ relay: Relay; stop: AbortController; end: Promise<RelayEnd> }> {
    const stop = new AbortController();
    const log = createLogger({ ...config.log, write: (line) => this.screen.note(line), now: Date.now });
    const relay = new Relay({
      config,
      log,
      version: version(),
      stop: stop.signal,
      ...(createPublisher && { createPublisher }),
    });
    relay.observer.onDelivered = (message, delayMs) => this.view.delivery(message, delayMs);
    const end = relay.run();
    end.catch((error: Error) => this.failure.reject(error));
    this.resources.defer(async () => {
      stop.abort();
      await end.catch(() => undefined);
    });
    // The first orders would otherwise wait for the slot, and their delay would tell of the start.
    await this.orFailure(until(() => relay.observer.mode === 'streaming'));
    this.view.ready('Relay', `http://127.0.0.1:${config.http.port}/metrics`);
    return { relay, stop, end };
  }

  /** Until the shop closes: all events are committed, or Ctrl-C. */
  private async sell(config: Config, relay: Relay): Promise<Shop> {
    const { signal } = this.context;
    const { rate, events = Infinity } = this.options;
    const connection = config.database.connection();
    const shop = new Shop({ connection, rate, events, signal, random: Math.random });
    this.view.running(() => ({
      committed: shop.committed,
      rolledBack: shop.rolledBack.size,
      lagSeconds: relay.lagSeconds,
    }));
    await this.orFailure(shop.run());
    this.view.stopping();
    return shop;
  }

  /** A row leaves the table when it is settled. False when that makes no progress any more. */
  private async untilDrained(client: Client): Promise<boolean> {
    let lastMs = performance.now();
    let least = Infinity;
    const check = async (): Promise<boolean> => {
      const { rows } = await client.query<{ count: string }>('select count(*) from outbox');
      const left = Number(rows[0]?.count);
      if (left < least) lastMs = performance.now();
      least = Math.min(least, left);
      return left === 0 || performance.now() - lastMs > STALLED_MS;
    };
    await this.orFailure(until(check));
    return least === 0;
  }

  private async orFailure<T>(promise: Promise<T>): Promise<T> {
    return await Promise.race([promise, this.failure.promise]);
  }
}

const NAMES = { stdout: 'Broker', kafka: 'Kafka', rabbitmq: 'RabbitMQ' } as const;
const PLACEHOLDERS = { stdout: '', kafka: '127.0.0.1:9092', rabbitmq: 'amqp://127.0.0.1' } as const;

function describeBroker(plan: BrokerPlan, { broker }: Config, channel: string): string {
  if (broker.kind === 'stdout') return 'none: this terminal (--broker kafka or rabbitmq for a real one)';
  const origin = plan.givenUrl === undefined ? 'started for the demo' : 'given';
  const where =
    broker.kind === 'kafka'
      ? broker.brokers.join(',')
      : broker
          .urls()
          .map((url) => new URL(url).host)
          .join(',');
  return `${where} (${origin}), ${broker.kind === 'kafka' ? 'topic' : 'exchange'} ${channel}`;
}

/** The services say in their message what to install. */
function unavailable(name: string, cause: unknown): RelayError {
  const message = messageOf(cause);
  const advice =
    name === 'PostgreSQL'
      ? 'The demo brings its own PostgreSQL by npm: run "npm ci" in the repository.'
      : 'Give a running one by --broker-url, or leave --broker out: the demo needs none.';
  return new RelayError('retry', 'demo-service', `${name} can't be had: ${message}`, { advice, cause });
}

async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await check())) await sleep(POLL_MS);
}
