import { once } from 'node:events';
import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { connect, disconnect } from '../../../postgres/connect.ts';
import { quoteIdentifier } from '../../../postgres/identifier.ts';
import { isPooled } from '../../../postgres/pooler.ts';
import { pause } from '../../../lifecycle/wait.ts';

export interface WakeUpOptions {
  readonly config: Config;
  readonly channel: string;
  /** Something may have been written. */
  readonly wake: () => void;
  /** Once at most: notifications never get here. */
  readonly onUseless: () => void;
}

const RECONNECT_MS = 1_000;

/**
 * Listens on a connection of its own, until the signal aborts; never rejects. Nothing depends on it: while the
 * connection is lost, and for a notification that never comes, the table is polled at its interval.
 */
export async function listenForWakeUps(options: WakeUpOptions, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const useful = await listen(options, signal).catch(() => true);
    if (!useful) {
      options.onUseless();
      return;
    }
    await pause(RECONNECT_MS, signal);
  }
}

/** Until the connection ends. Resolves with false when a pooler would give the next statement another session. */
async function listen({ config, channel, wake }: WakeUpOptions, signal: AbortSignal): Promise<boolean> {
  const client: Client = await connect(config.database.connection(), {
    applicationName: 'outbox-relay wake-up',
    signal,
  });
  try {
    if (isPooled(client)) return false;
    const ended = once(client, 'end', { signal });
    // It may end while the next statement is awaited.
    ended.catch(() => undefined);
    client.on('notification', wake);
    await client.query(`listen ${quoteIdentifier(channel)}`);
    // What was written while nobody listened.
    wake();
    await ended;
    return true;
  } finally {
    await disconnect(client);
  }
}
