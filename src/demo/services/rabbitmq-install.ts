import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { run } from './install.ts';
import type { OnProgress } from './install.ts';

/** Debian keeps the real programs here; those on the PATH change to another user first. */
const DEBIAN_FOLDER = '/usr/lib/rabbitmq/bin';

const REMEDY = 'apt-get install rabbitmq-server (macOS: brew install rabbitmq), or give a broker by URL';

/** The folder with `rabbitmq-server` and `rabbitmqctl`. As root on a system with apt it is installed when missing. */
export async function rabbitmqPrograms(onProgress: OnProgress): Promise<string> {
  const found = findPrograms();
  if (found !== undefined) return found;
  if (process.getuid?.() !== 0 || find('apt-get', searchPath()) === undefined) {
    throw new Error(`RabbitMQ is not installed: ${REMEDY}`);
  }
  onProgress('RabbitMQ: installing rabbitmq-server by apt-get');
  await install();
  const installed = findPrograms();
  if (installed === undefined) throw new Error(`RabbitMQ's programs were not found: ${REMEDY}`);
  return installed;
}

async function install(): Promise<void> {
  // The package would start a broker for the whole machine; the container may also have no init system for it.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  await run('apt-get', ['update', '-q'], { env });
  await run('apt-get', ['install', '-q', '-y', '--no-install-recommends', 'rabbitmq-server'], { env });
}

function findPrograms(): string | undefined {
  const prefixes = [DEBIAN_FOLDER, ...searchPath(), '/opt/homebrew/sbin', '/usr/local/sbin'];
  return find('rabbitmq-server', prefixes);
}

function searchPath(): string[] {
  return (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
}

function find(program: string, folders: readonly string[]): string | undefined {
  return folders.find((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
