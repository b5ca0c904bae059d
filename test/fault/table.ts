import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultPoint } from '../../src/lifecycle/fault-point.ts';
import { Scene } from '../support/crash-run.ts';
import { withClient } from '../support/database.ts';
import type { Verdict } from '../support/judge.ts';
import { Proxy } from '../support/proxy.ts';
import type { RelayExit, RelayProcess } from '../support/relay-process.ts';
import type { BrokerName } from '../support/target.ts';
import { until } from '../support/until.ts';

interface Row {
  /**
   * `start`: reached when there is no slot; `pass`: then, and nothing was polled before; `flow`: while events flow;
   * `park`: by a poison event; `drain`: by SIGTERM.
   */
  readonly reachedBy: 'start' | 'pass' | 'flow' | 'park' | 'drain';
  /** Which hit is the fault's: later ones are in the middle of the stream. */
  readonly hit: number;
}

/** Every fault point: one that has no row here does not compile. */
const ROWS: Readonly<Record<FaultPoint, Row>> = {
  'after-slot-create': { reachedBy: 'start', hit: 1 },
  'after-snapshot-import': { reachedBy: 'start', hit: 1 },
  'after-handover-row': { reachedBy: 'start', hit: 1 },
  'during-poll': { reachedBy: 'start', hit: 1 },
  'during-table-pass': { reachedBy: 'pass', hit: 1 },
  'after-handover-complete': { reachedBy: 'start', hit: 1 },
  'after-receive-before-publish': { reachedBy: 'flow', hit: 20 },
  'after-lease-check': { reachedBy: 'flow', hit: 35 },
  'after-publish-before-outcome': { reachedBy: 'flow', hit: 50 },
  'after-publish-before-settle': { reachedBy: 'flow', hit: 80 },
  'after-settle-before-acknowledge': { reachedBy: 'flow', hit: 110 },
  'after-acknowledge': { reachedBy: 'flow', hit: 140 },
  'after-park-decision': { reachedBy: 'park', hit: 1 },
  'during-drain': { reachedBy: 'drain', hit: 1 },
};

const STREAM_ONLY = { SOURCE: 'streaming' };

export const POINTS = Object.keys(ROWS) as FaultPoint[];

const STOPPED_MS = 2_000;
/** Long enough for the test to read the line and to cut while the process can do nothing. */
const HELD_MS = 200;
const EVENTS_PER_SECOND = 300;
const MAX_EVENT_BYTES = 200_000;

export interface FaultTableResult {
  readonly verdict: Verdict;
  /** Poison events that were committed, and how often each is in the dead letters. */
  readonly poisoned: number;
  readonly parked: { readonly id: string; readonly copies: number }[];
  /** What the relays wrote, one after the other. */
  readonly output: string;
}

/** One column of the table: a shop that writes all the time, and relays that meet one fault after the other. */
export class FaultTable {
  private readonly scene: Scene;
  private readonly database: Proxy;
  private readonly broker: Proxy;
  private readonly relays: RelayProcess[] = [];
  private poisoned = 0;

  private constructor(scene: Scene, database: Proxy, broker: Proxy) {
    this.scene = scene;
    this.database = database;
    this.broker = broker;
  }

  /** `broker` forwards to the broker; the relay knows only it. */
  static async open(name: BrokerName, broker: Proxy, brokerAddress: string): Promise<FaultTable> {
    const scene = await Scene.open(name, { brokerAddress, shop: { rate: EVENTS_PER_SECOND, keys: 20 } });
    const database = await Proxy.start(scene.database.url);
    scene.shop.start();
    return new FaultTable(scene, database, broker);
  }

  async close(): Promise<void> {
    await this.database.close();
    await this.scene.close();
  }

  /** SIGKILL at the point; the next relay has to go on. */
  async kill(point: FaultPoint): Promise<void> {
    const { reachedBy, hit } = ROWS[point];
    if (reachedBy === 'start' || reachedBy === 'pass') await this.prepareHandover();
    const relay = this.start([`${point}:kill:${hit}`], reachedBy === 'pass' ? STREAM_ONLY : {});
    if (reachedBy === 'park') await this.poison();
    if (reachedBy === 'drain') await this.drainOnceStreaming(relay);
    await relay.waitForLine(faultLine(point), 30_000);
    assert.deepEqual(await relay.exit, { code: null, signal: 'SIGKILL' }, `${point} was not hit`);
  }

  /** SIGSTOP at every point of one process's life, SIGCONT after two seconds. */
  async stopAndContinue(): Promise<RelayExit[]> {
    return await this.throughAllPoints('stop', async (relay) => {
      // The pause is the fault itself.
      await sleep(STOPPED_MS);
      relay.kill('SIGCONT');
    });
  }

  /** At every point all connections of the relay are reset, to database and broker, while it stands still there. */
  async cutConnections(): Promise<RelayExit[]> {
    return await this.throughAllPoints(`delay-${HELD_MS}`, async () => {
      assert.ok(this.database.connections > 0);
      this.database.cut();
      this.broker.cut();
      await Promise.resolve();
    });
  }

  /** Three processes: two meet the points of the hand-over, with polling and without, the third those of the stream, of parking and draining. */
  private async throughAllPoints(
    action: string,
    meet: (relay: RelayProcess) => Promise<void>,
  ): Promise<RelayExit[]> {
    const faults = (points: readonly FaultPoint[]): string[] =>
      points.map((point) => `${point}:${action}:${ROWS[point].hit}`);
    const meetAt = async (relay: RelayProcess, points: readonly FaultPoint[]): Promise<void> => {
      await Promise.all(
        points.map(async (point) => {
          await relay.waitForLine(faultLine(point), 60_000);
          await meet(relay);
        }),
      );
    };
    const starts: RelayExit[] = [];
    for (const [points, env] of [
      [reached('start'), {}],
      [reached('pass'), STREAM_ONLY],
    ] as const) {
      await this.prepareHandover();
      const exit = await this.during(
        faults(points),
        async (relay) => {
          await meetAt(relay, points);
          await this.drainOnceStreaming(relay);
        },
        env,
      );
      starts.push(exit);
    }
    const flowing = reached('flow');
    const last = await this.during(
      faults([...flowing, 'after-park-decision', 'during-drain']),
      async (relay) => {
        await meetAt(relay, flowing);
        await this.poison();
        await meetAt(relay, ['after-park-decision']);
        await until(async () => (await this.deadLetters()).length === this.poisoned, {
          what: 'the poison event to be parked',
        });
        await this.drainOnceStreaming(relay);
        await meetAt(relay, ['during-drain']);
      },
    );
    return [...starts, last];
  }

  private async during(
    faults: readonly string[],
    run: (relay: RelayProcess) => Promise<void>,
    given: Readonly<Record<string, string>> = {},
  ): Promise<RelayExit> {
    const relay = this.start(faults, given);
    try {
      await run(relay);
      return await relay.exit;
    } finally {
      await relay.destroy();
    }
  }

  /** Lets a last relay drain, then judges. */
  async finish(): Promise<FaultTableResult> {
    await this.scene.shop.stop();
    const relay = this.start([]);
    await this.scene.drained();
    relay.kill('SIGTERM');
    const exit = await relay.exit;
    assert.deepEqual(exit, { code: 0, signal: null }, relay.output);
    return {
      verdict: await this.scene.verdict(),
      poisoned: this.poisoned,
      parked: await this.deadLetters(),
      output: this.relays.map((each) => each.output).join('\n\n'),
    };
  }

  /** Nothing may be left from before: the row of progress stays, the slot is gone, and rows wait in the table. */
  private async prepareHandover(): Promise<void> {
    const slot = this.scene.database.name;
    await withClient(this.scene.database.url, async (client) => {
      await until(
        async () => {
          const { rows } = await client.query<{ active: string }>(
            'select active_pid as active from pg_replication_slots where slot_name = $1',
            [slot],
          );
          return rows.every(({ active }) => active === null);
        },
        { what: 'the walsender of the relay before to end' },
      );
      await client.query(
        'select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1',
        [slot],
      );
    });
    await until(async () => (await this.scene.waiting()) >= 50, { what: 'rows that wait in the table' });
  }

  private start(faults: readonly string[], given: Readonly<Record<string, string>> = {}): RelayProcess {
    const env = {
      ...given,
      DATABASE_URL: this.database.url(this.scene.database.url),
      MAX_EVENT_BYTES: String(MAX_EVENT_BYTES),
    };
    const relay = this.scene.startRelay({ env, fault: faults.join(',') });
    this.relays.push(relay);
    return relay;
  }

  /** An event that no broker is asked to take. */
  private async poison(): Promise<void> {
    await withClient(this.scene.database.url, async (client) => {
      await client.query(`select outbox_emit('order', 'key-1', 'Placed', to_jsonb(repeat('x', $1)))`, [
        MAX_EVENT_BYTES + 1,
      ]);
    });
    this.poisoned++;
  }

  private async drainOnceStreaming(relay: RelayProcess): Promise<void> {
    await until(() => isStreaming(relay.output), { what: 'the relay to stream' });
    relay.kill('SIGTERM');
  }

  private async deadLetters(): Promise<{ id: string; copies: number }[]> {
    return await withClient(this.scene.database.url, async (client) => {
      const { rows } = await client.query<{ id: string; copies: string }>(
        'select event_id as id, count(*) as copies from outbox_relay_dead_letters group by event_id',
      );
      return rows.map(({ id, copies }) => ({ id, copies: Number(copies) }));
    });
  }
}

/** Now, and not before the session ended that a cut connection has ended. */
function isStreaming(output: string): boolean {
  return output.lastIndexOf('mode: streaming') > output.lastIndexOf('the session ended');
}

function reached(by: Row['reachedBy']): FaultPoint[] {
  return POINTS.filter((point) => ROWS[point].reachedBy === by);
}

function faultLine(point: FaultPoint): RegExp {
  return new RegExp(`^fault-point ${point}$`);
}
