import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Client } from 'pg';
import { Scene } from '../support/crash-run.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { judge, type Verdict } from '../support/judge.ts';
import { lateMessages } from '../support/late-messages.ts';
import { modeChanges } from '../support/modes.ts';
import { Proxy } from '../support/proxy.ts';
import { RelayProcess } from '../support/relay-process.ts';
import type { BrokerName } from '../support/target.ts';
import { until } from '../support/until.ts';

/**
 * What happens to the leader. `kill`: SIGKILL, as seen from another machine; `kill-here`: on the same one, where a
 * successor can prove the death; `stop`: SIGSTOP, later SIGCONT; `cut`: nothing passes between it and PostgreSQL any
 * more, and no connection is reset; `lease-check`: SIGSTOP between the question for the lease and the write.
 */
export const LEADER_FAULTS = ['kill', 'kill-here', 'stop', 'cut', 'lease-check'] as const;
export type LeaderFault = (typeof LEADER_FAULTS)[number];

export interface LeadersOptions {
  readonly broker: BrokerName;
  readonly fault: LeaderFault;
  readonly rounds: number;
  /** How long the leader stands still or is cut off; at least until another one has delivered. */
  readonly awayMs: number;
  /** Between 0 and 1; a seeded one makes the same moments again. */
  readonly random?: () => number;
}

export interface LeadersResult {
  readonly verdict: Verdict;
  /** For each round, from the fault on: until the lease was taken, and until the successor had delivered something. */
  readonly takenMs: readonly number[];
  readonly takeOverMs: readonly number[];
  /** For each lease: its messages that came after one of a later lease on their key. Empty: never interleaved. */
  readonly late: ReadonlyMap<number, number>;
  /** How many called themselves the leader at one scrape of all. */
  readonly mostLeaders: number;
  /** What a member said that was not ready. */
  readonly notReady: readonly string[];
}

const LOAD = { rate: 500, writers: 4, keys: 50, rollback: 0.15 };
const RELAYS = 3;
/**
 * What one that is cut off while it works off a backlog can repeat: it delivers what it has read as long as its lease
 * holds, and can't write that.
 */
export const MAX_IN_FLIGHT_EVENTS = 1_000;
const SCRIPT = fileURLToPath(new URL('../support/signing-relay.ts', import.meta.url));
/** After the leader has delivered: the faults meet it at any moment. */
const LEADING_MS: [number, number] = [300, 2_000];
/** The leader stops at one of so many questions for the lease: somewhere in a batch. */
const MOST_CHECKS = 20;
const TAKE_OVER_TIMEOUT_MS = 40_000;
const SCRAPE_INTERVAL_MS = 250;
/** Below the grace of the lease, so that who was leader at the beginning of a scrape and who is at its end can't be two. */
const SCRAPE_TIMEOUT_MS = 400;

interface Member {
  readonly relay: RelayProcess;
  readonly exhibits: ExhibitReader;
  /** Its way to PostgreSQL. */
  readonly proxy: Proxy;
}

interface State {
  readonly pid: number;
  readonly token: number;
  /** The holder of the lease has settled something. */
  readonly delivers: boolean;
}

/** Three relays, one after the other of which loses the lead, while a shop writes. */
export async function changeLeaders(options: LeadersOptions): Promise<LeadersResult> {
  const cluster = await Cluster.open(options);
  try {
    return await cluster.run();
  } finally {
    await cluster.close();
  }
}

class Cluster {
  private readonly options: LeadersOptions;
  private readonly scene: Scene;
  private readonly client: Client;
  private readonly random: () => number;
  private readonly members = new Set<Member>();
  private readonly takenMs: number[] = [];
  private readonly takeOverMs: number[] = [];
  private readonly over = new AbortController();
  private readonly notReady: string[] = [];
  private mostLeaders = 0;

  private constructor(options: LeadersOptions, scene: Scene, client: Client) {
    this.options = options;
    this.scene = scene;
    this.client = client;
    this.random = options.random ?? Math.random;
  }

  static async open(options: LeadersOptions): Promise<Cluster> {
    const scene = await Scene.open(options.broker, { shop: LOAD });
    const client = new Client({ connectionString: scene.database.url });
    await client.connect();
    return new Cluster(options, scene, client);
  }

  async run(): Promise<LeadersResult> {
    await Promise.all(Array.from({ length: RELAYS }, () => this.startMember()));
    this.scene.shop.start();
    const scraping = this.scrapeAll();
    for (let round = 0; round < this.options.rounds; round++) await this.round();
    await this.scene.shop.stop();
    await this.scene.drained();
    this.over.abort();
    await scraping;
    const received = await this.scene.target.read();
    const verdict = judge(await this.scene.shop.committed(), received);
    for (const { relay } of this.members) this.notReady.push(...relay.ready.refusals);
    const { takenMs, takeOverMs, mostLeaders, notReady } = this;
    return { verdict, takenMs, takeOverMs, late: lateMessages(received), mostLeaders, notReady };
  }

  async close(): Promise<void> {
    this.over.abort();
    await Promise.all([...this.members].map((member) => this.remove(member)));
    await this.client.end();
    await this.scene.close();
  }

  private async round(): Promise<void> {
    const { token, member } = await this.leader();
    const [least, most] = LEADING_MS;
    await sleep(least + this.random() * (most - least));
    await this.strike(member);
    const struckMs = performance.now();
    const what = `another leader than ${token}`;
    const limits = { timeoutMs: TAKE_OVER_TIMEOUT_MS, what };
    await until(async () => (await this.state()).token > token, limits);
    this.takenMs.push(performance.now() - struckMs);
    await until(async () => (await this.state()).delivers, limits);
    this.takeOverMs.push(performance.now() - struckMs);
    // How long it is away is part of the fault.
    await sleep(Math.max(0, struckMs + this.options.awayMs - performance.now()));
    await this.mend(member);
  }

  /** Resolves at the moment of the fault. */
  private async strike({ relay, proxy }: Member): Promise<void> {
    switch (this.options.fault) {
      case 'kill':
      case 'kill-here': {
        relay.kill('SIGKILL');
        return;
      }
      case 'stop': {
        relay.kill('SIGSTOP');
        return;
      }
      case 'cut': {
        proxy.blackHole();
        return;
      }
      case 'lease-check': {
        relay.kill('SIGUSR2');
        await relay.waitForLine(/^fault-point after-lease-check$/);
      }
    }
  }

  /** Until there are three again, and the one that was struck has noticed that it leads no longer. */
  private async mend(member: Member): Promise<void> {
    const { relay, proxy } = member;
    if (this.options.fault.startsWith('kill')) {
      await this.remove(member);
      await this.startMember();
      return;
    }
    proxy.heal();
    relay.kill('SIGCONT');
    await until(() => modeChanges(relay).at(-1)?.mode === 'standby', {
      timeoutMs: TAKE_OVER_TIMEOUT_MS,
      what: 'the earlier leader to stand by',
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${relay.output}`, { cause: error });
    });
    if (this.options.fault !== 'lease-check') return;
    // Its next stop is a line that looks the same.
    await this.remove(member);
    await this.startMember();
  }

  private async startMember(): Promise<void> {
    const exhibits = await ExhibitReader.open();
    const proxy = await Proxy.start(this.scene.database.url);
    const relay = RelayProcess.start({
      script: SCRIPT,
      env: {
        ...this.scene.env,
        ...exhibits.env,
        MAX_IN_FLIGHT_EVENTS: String(MAX_IN_FLIGHT_EVENTS),
        DATABASE_URL: proxy.url(this.scene.database.url),
        CHECKS: String(1 + Math.floor(this.random() * MOST_CHECKS)),
        ...(this.options.fault !== 'kill-here' && { ALONE: '1' }),
      },
    });
    this.members.add({ relay, exhibits, proxy });
    await relay.waitForLine(/mode: (standby|polling|streaming)/, 30_000);
  }

  private async remove(member: Member): Promise<void> {
    this.members.delete(member);
    this.notReady.push(...member.relay.ready.refusals);
    await member.relay.destroy();
    await member.proxy.close();
  }

  /** Whoever streams now. */
  private async leader(): Promise<{ token: number; member: Member }> {
    return await until(
      async () => {
        const { pid, token, delivers } = await this.state();
        const member = [...this.members].find(({ relay }) => relay.pid === pid);
        return member && delivers ? { token, member } : undefined;
      },
      { timeoutMs: TAKE_OVER_TIMEOUT_MS, what: 'a leader that delivers' },
    );
  }

  private async state(): Promise<State> {
    const { rows } = await this.client.query<{ holder: string | null; token: string; delivers: boolean }>(
      `select holder, token, coalesce(lease_token = token and handover = 'complete' and updated_at > acquired_at, false) as delivers
         from outbox_relay_lease l join outbox_relay_progress using (slot_name)`,
    );
    const [row] = rows;
    const pid = Number(row?.holder?.split('/')[3]);
    return { pid, token: Number(row?.token), delivers: row?.delivers === true };
  }

  private async scrapeAll(): Promise<void> {
    const { signal } = this.over;
    while (!signal.aborted) {
      const leads = await Promise.all([...this.members].map(({ exhibits }) => saysItLeads(exhibits)));
      this.mostLeaders = Math.max(this.mostLeaders, leads.filter(Boolean).length);
      await sleep(SCRAPE_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}

/** False also when it does not answer in time. */
async function saysItLeads(exhibits: ExhibitReader): Promise<boolean> {
  const answer = exhibits.scrape().then(
    (scrape) => scrape.value('outbox_relay_leader') === 1,
    () => false,
  );
  return await Promise.race([answer, sleep(SCRAPE_TIMEOUT_MS, false)]);
}
