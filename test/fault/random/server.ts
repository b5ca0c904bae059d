import type { PostgresServer } from '../../../src/demo/services/postgres.ts';
import { startPair } from '../../support/standby.ts';

/** The PostgreSQL of a round. */
export interface RoundServer {
  /** Superuser's; the same after a failover. */
  readonly url: string;
  crash(): Promise<void>;
  start(): Promise<void>;
  failOver(): Promise<void>;
  /** What was only for this round is gone. */
  release(): Promise<void>;
}

export const POSTGRES_SETTINGS: Readonly<Record<string, string>> = {
  max_connections: '200',
  // An asynchronous commit stays in memory for up to three times this long, so that a crash takes some back.
  wal_writer_delay: '1s',
  // The server crashes here, the machine does not: what was written to a file is still there.
  fsync: 'off',
};

/** One that stays for the next round. */
export function shared(postgres: PostgresServer): RoundServer {
  return {
    url: postgres.url,
    crash: async () => await postgres.stop('immediate'),
    start: async () => await postgres.start(),
    failOver: () => {
      throw new Error('there is no standby');
    },
    release: async () => await postgres.start(),
  };
}

/** A primary with a standby, for one round: nothing that the standby lacks is given out (SLOT_FAILOVER). */
export async function paired(): Promise<RoundServer> {
  const pair = await startPair({
    primary: { ...POSTGRES_SETTINGS, synchronized_standby_slots: 'standby' },
    // The new primary has no standby of its own to wait for.
    standby: { sync_replication_slots: 'on', synchronized_standby_slots: '' },
  });
  let current = pair.primary;
  // A crash must not come in the middle of a promotion: that is another fault.
  let before: Promise<unknown> = Promise.resolve();
  const inTurn = async (action: () => Promise<void>): Promise<void> => {
    const turn = before.then(action);
    before = turn.catch(() => undefined);
    await turn;
  };
  return {
    url: pair.url,
    crash: async () => await inTurn(async () => await current.stop('immediate')),
    start: async () => await inTurn(async () => await current.start()),
    failOver: async () =>
      await inTurn(async () => {
        current = pair.standby;
        await pair.failOver();
      }),
    release: async () => await pair.remove(),
  };
}
