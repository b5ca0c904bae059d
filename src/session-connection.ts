import type { Client } from 'pg';
import type { Config } from './config/config.ts';
import { connect } from './postgres/connect.ts';

const SETTINGS = {
  // Index scans for a handful of rows, whatever the statistics of a table that is empty most of the time say.
  // Nor a bitmap, which would read all that is left of a backlog again for each page of the table pass.
  enable_seqscan: 'off',
  enable_bitmapscan: 'off',
  // The clean-up's statement reads along bounds that it is given: planning it anew for each set of them takes the server
  // two thirds of its time and finds the same plan.
  plan_cache_mode: 'force_generic_plan',
  // As durable as the local disk: waiting for standbys would only delay the acknowledgement.
  synchronous_commit: 'local',
};

/** The connection by which a session reads and cleans up the table and notes its progress. Rejects as `connect` does. */
export async function connectSession(
  config: Config,
  signals: {
    /** Cuts the connection, whenever that is. */
    readonly signal: AbortSignal;
    /** Gives up connecting: later the connection is still needed, to write what is settled. */
    readonly attempt: AbortSignal;
  },
): Promise<Client> {
  return await connect(config.database.connection(), {
    ...signals,
    applicationName: 'outbox-relay',
    settings: SETTINGS,
  });
}
