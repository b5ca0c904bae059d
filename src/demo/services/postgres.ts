import { chmodSync, chownSync, cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ServiceFolder } from './folder.ts';
import { run } from './install.ts';
import type { OnProgress } from './install.ts';
import { freePort } from './ports.ts';
import { postgresBinaries, serverUser, usableBy } from './postgres-binaries.ts';
import type { PostgresVersion } from './postgres-binaries.ts';
import { ServerProcess } from './server-process.ts';
import type { ServerUser } from './server-process.ts';

const START_TIMEOUT_MS = 60_000;
const DEFAULT_PASSWORD = 'postgres';

export interface PostgresOptions {
  readonly version?: PostgresVersion;
  /** Lines of postgresql.conf, over the defaults below. */
  readonly settings?: Readonly<Record<string, string>>;
  /** How clients on 127.0.0.1 prove who they are. */
  readonly auth?: 'trust' | 'scram-sha-256';
  /** The superuser's; `postgres` when it need be no secret. Letters and digits. */
  readonly password?: string;
  /** Complete lines of pg_hba.conf, tried before the one for `auth`. */
  readonly hba?: readonly string[];
  readonly ssl?: { readonly certPem: string; readonly keyPem: string };
  readonly onProgress?: OnProgress;
}

export interface PostgresServer {
  /** Superuser, database `postgres`. */
  readonly url: string;
  readonly port: number;
  readonly dataDir: string;
  /** Everything of this server, removed by `remove()`. */
  readonly folder: string;
  /** The postmaster's process id. Throws while the server is stopped. */
  pid(): number;
  /** `immediate` ends without a checkpoint, as a crash does. */
  stop(mode?: 'fast' | 'immediate'): Promise<void>;
  start(): Promise<void>;
  remove(): Promise<void>;
}

const DEFAULT_SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  wal_level: 'logical',
  max_replication_slots: '20',
  max_wal_senders: '20',
  max_connections: '100',
  shared_buffers: '64MB',
  log_min_messages: 'warning',
};

/** A PostgreSQL server of our own on 127.0.0.1, in a temporary folder. */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const { version = 18, onProgress = () => undefined } = options;
  const installed = await postgresBinaries(version, onProgress);
  const folder = new ServiceFolder(`postgres-${version}`);
  try {
    const user = await serverUser();
    folder.giveTo(user);
    const native = await readable(installed, folder, user);
    const server = new Server({ folder, native, user, port: await freePort(), options });
    onProgress(`PostgreSQL ${version}: making a database cluster`);
    await server.initialise();
    await server.start();
    onProgress(`PostgreSQL ${version}: ready on port ${server.port}`);
    return server;
  } catch (error) {
    await folder.remove();
    throw error;
  }
}

/** A checkout below root's home can't be entered by the server's user: then the binaries are copied. */
async function readable(
  native: string,
  folder: ServiceFolder,
  user: ServerUser | undefined,
): Promise<string> {
  if (user === undefined || (await usableBy(native, user))) return native;
  const copy = join(folder.path, 'native');
  cpSync(native, copy, { recursive: true, verbatimSymlinks: true });
  return copy;
}

class Server implements PostgresServer {
  readonly port: number;
  readonly dataDir: string;
  readonly folder: string;
  private readonly parts: {
    readonly folder: ServiceFolder;
    readonly native: string;
    readonly user: ServerUser | undefined;
    readonly options: PostgresOptions;
  };
  private process: ServerProcess | undefined;

  constructor(parts: Server['parts'] & { port: number }) {
    this.parts = parts;
    this.port = parts.port;
    this.folder = parts.folder.path;
    this.dataDir = join(parts.folder.path, 'data');
  }

  get url(): string {
    const { auth, password = DEFAULT_PASSWORD } = this.parts.options;
    return `postgresql://postgres${auth === 'scram-sha-256' ? `:${password}` : ''}@127.0.0.1:${this.port}/postgres`;
  }

  pid(): number {
    if (this.process?.running !== true) throw new Error('PostgreSQL is not running');
    return this.process.pid;
  }

  async initialise(): Promise<void> {
    const { folder, native, user, options } = this.parts;
    const passwordFile = join(folder.path, 'password');
    this.writeFor(passwordFile, `${options.password ?? DEFAULT_PASSWORD}\n`);
    const args = ['-D', this.dataDir, '-U', 'postgres', '-E', 'UTF8', '--no-locale', '--no-sync'];
    await run(join(native, 'bin/initdb'), [...args, '-A', 'scram-sha-256', `--pwfile=${passwordFile}`], {
      cwd: folder.path,
      ...(user && { user }),
    });
    rmSync(passwordFile);
    this.configure(options);
  }

  private configure({ settings, auth = 'trust', hba = [], ssl }: PostgresOptions): void {
    const all = { ...DEFAULT_SETTINGS, port: String(this.port), ...(ssl && { ssl: 'on' }), ...settings };
    const lines = Object.entries(all).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`);
    writeFileSync(join(this.dataDir, 'postgresql.auto.conf'), lines.join(''));
    const rules = [...hba, `host all all 127.0.0.1/32 ${auth}`, `host replication all 127.0.0.1/32 ${auth}`];
    writeFileSync(join(this.dataDir, 'pg_hba.conf'), `${rules.join('\n')}\n`);
    if (ssl !== undefined) {
      this.writeFor(join(this.dataDir, 'server.crt'), ssl.certPem);
      this.writeFor(join(this.dataDir, 'server.key'), ssl.keyPem);
    }
  }

  /** The server refuses a key that others may read or that is not its own. */
  private writeFor(path: string, text: string): void {
    writeFileSync(path, text, { mode: 0o600 });
    chmodSync(path, 0o600);
    const { user } = this.parts;
    if (user !== undefined) chownSync(path, user.uid, user.gid);
  }

  async start(): Promise<void> {
    if (this.process?.running === true) return;
    const { folder, native, user } = this.parts;
    const started = await ServerProcess.start({
      folder,
      name: 'postgres',
      command: join(native, 'bin/postgres'),
      args: ['-D', this.dataDir],
      user,
      killSignal: 'SIGQUIT', // SIGKILL of the postmaster would leave its shared memory segment behind.
    });
    this.process = started;
    await started.untilReady(() => this.isReady(started.pid), START_TIMEOUT_MS);
  }

  /** Read from the postmaster's own status line: a connection could be refused by the rules under test. */
  private isReady(pid: number): boolean {
    const path = join(this.dataDir, 'postmaster.pid');
    if (!existsSync(path)) return false;
    const lines = readFileSync(path, 'utf8').split('\n');
    return lines[0]?.trim() === String(pid) && lines[7]?.trim() === 'ready';
  }

  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    await this.process?.stop(mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
  }

  async remove(): Promise<void> {
    await this.stop('immediate');
    await this.parts.folder.remove();
  }
}
