import { setTimeout as sleep } from 'node:timers/promises';
import { freshDatabase, withClient, type FreshDatabase } from './database.ts';
import { judge, type Verdict } from './judge.ts';
import { migrateByEnv } from './migrated.ts';
import { RelayProcess } from './relay-process.ts';
import { Shop, type ShopOptions } from './shop.ts';
import { freshTarget, type BrokerName, type Target } from './target.ts';
import { until } from './until.ts';

/** A shop that writes, a relay that delivers, and a broker: what every test of delivery begins with. */
export class Scene {
  readonly database: FreshDatabase;
  readonly target: Target;
  readonly shop: Shop;
  readonly env: Record<string, string>;

  private constructor(database: FreshDatabase, target: Target, shop: Shop) {
    this.database = database;
    this.target = target;
    this.shop = shop;
    this.env = {
      DATABASE_URL: database.url,
      SLOT_NAME: database.name,
      HTTP_HOST: '127.0.0.1',
      HTTP_PORT: '0',
      ...target.env,
    };
  }

  static async open(
    broker: BrokerName,
    options: { shop?: Partial<ShopOptions>; serverUrl?: string; brokerAddress?: string } = {},
  ): Promise<Scene> {
    const database = await freshDatabase(options.serverUrl);
    const target = await freshTarget(broker, options.brokerAddress);
    await migrateByEnv({ DATABASE_URL: database.url, SLOT_NAME: database.name });
    const shop = await Shop.open({ url: database.url, ...options.shop });
    return new Scene(database, target, shop);
  }

  startRelay(options: { fault?: string; env?: Record<string, string> } = {}): RelayProcess {
    const { fault, env } = options;
    return RelayProcess.start({ env: { ...this.env, ...env }, ...(fault !== undefined && { fault }) });
  }

  /** Waits until the relay has nothing left to deliver: the outbox is empty. */
  async drained(timeoutMs = 60_000): Promise<void> {
    await until(async () => (await this.waiting()) === 0, { timeoutMs, what: 'the outbox to be empty' });
  }

  async waiting(): Promise<number> {
    return await withClient(this.database.url, async (client) => {
      const { rows } = await client.query<{ count: string }>('select count(*) from outbox');
      return Number(rows[0]?.count);
    });
  }

  async verdict(): Promise<Verdict> {
    return judge(await this.shop.committed(), await this.target.read());
  }

  async close(): Promise<void> {
    await this.shop.stop();
    await this.target.drop();
    await this.database.drop();
  }
}

/** Ends a relay by `signal` at random moments, `rounds` times, while the shop writes; then lets a last one drain. */
export async function interruptedDelivery(
  scene: Scene,
  options: {
    rounds: number;
    signal: 'SIGKILL' | 'SIGTERM';
    lifeMs: [number, number];
    /** Between 0 and 1; a seeded one makes the same moments again. */
    random?: () => number;
    env?: Record<string, string>;
  },
): Promise<{ verdict: Verdict; exits: (number | null)[] }> {
  const exits: (number | null)[] = [];
  const { random = Math.random, env = {} } = options;
  scene.shop.start();
  for (let round = 0; round < options.rounds; round++) {
    const relay = scene.startRelay({ env });
    await relay.waitForLine(/mode: streaming/);
    const [least, most] = options.lifeMs;
    await sleep(least + random() * (most - least));
    relay.kill(options.signal);
    exits.push((await relay.exit).code);
  }
  await scene.shop.stop();
  const last = scene.startRelay({ env });
  try {
    await scene.drained();
  } finally {
    last.kill('SIGTERM');
    exits.push((await last.exit).code);
  }
  return { verdict: await scene.verdict(), exits };
}
