import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ServiceFolder } from '../../src/demo/services/folder.ts';
import { run } from '../../src/demo/services/install.ts';
import { freePort } from '../../src/demo/services/ports.ts';
import { accepts } from '../../src/demo/services/probe.ts';
import { ServerProcess } from '../../src/demo/services/server-process.ts';

const PROGRAM = '/usr/sbin/pgbouncer';
const REMEDY = 'apt-get install pgbouncer';
/** It refuses to run as root; any other user will do. */
const NOBODY = { uid: 65_534, gid: 65_534 };

export interface Pooler {
  /** The database of the URL that it was started for, through the pooler. */
  readonly url: string;
  remove(): Promise<void>;
}

/** PgBouncer in transaction mode with two connections to the server, as it comes: it refuses `options`. */
export async function startPgbouncer(serverUrl: string): Promise<Pooler> {
  await ensureInstalled();
  const server = new URL(serverUrl);
  const port = await freePort();
  const folder = new ServiceFolder('pgbouncer');
  const database = server.pathname.slice(1);
  writeFileSync(
    join(folder.path, 'pgbouncer.ini'),
    `[databases]
${database} = host=${server.hostname} port=${server.port} user=${server.username}${server.password && ` password=${server.password}`}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
`,
  );
  const user = process.getuid?.() === 0 ? NOBODY : undefined;
  folder.giveTo(user);
  const bouncer = await ServerProcess.start({
    folder,
    name: 'pgbouncer',
    command: PROGRAM,
    args: ['pgbouncer.ini'],
    user,
  });
  await bouncer.untilReady(async () => await accepts(port), 10_000);
  const url = new URL(serverUrl);
  url.hostname = '127.0.0.1';
  url.port = String(port);
  const remove = async (): Promise<void> => {
    await bouncer.stop('SIGKILL');
    await folder.remove();
  };
  return { url: url.href, remove };
}

async function ensureInstalled(): Promise<void> {
  if (existsSync(PROGRAM)) return;
  if (process.getuid?.() !== 0) throw new Error(`PgBouncer is not installed: ${REMEDY}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  await run('apt-get', ['update', '-q'], { env });
  await run('apt-get', ['install', '-q', '-y', '--no-install-recommends', 'pgbouncer'], { env });
}
