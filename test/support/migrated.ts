import { loadDatabasePart } from '../../src/config/load.ts';
import { connect, disconnect } from '../../src/postgres/connect.ts';
import { migrate } from '../../src/postgres/migrate.ts';

/** Migrates in this process: nearly every test begins with it, and the command itself has tests of its own. */
export async function migrateByEnv(env: Readonly<Record<string, string>>): Promise<void> {
  const config = loadDatabasePart(env);
  const { signal } = new AbortController();
  const client = await connect(config.database.connection(), { applicationName: 'test', signal });
  try {
    await migrate(client, { ...config, adopt: false, dryRun: false });
  } finally {
    await disconnect(client);
  }
}
