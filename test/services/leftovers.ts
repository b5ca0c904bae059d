import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync, readFileSync, readlinkSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { until } from '../support/until.ts';

const script = fileURLToPath(new URL('fixtures/start.ts', import.meta.url));

/** Ids of the processes that work in this folder or know it from their environment. Linux only. */
function processesOf(folder: string): number[] {
  if (!existsSync('/proc/self')) return [];
  return globSync('/proc/[0-9]*')
    .filter((path) => {
      const cwd = quietly(() => readlinkSync(`${path}/cwd`));
      return (
        cwd.startsWith(folder) || quietly(() => readFileSync(`${path}/environ`, 'latin1')).includes(folder)
      );
    })
    .map((path) => Number(path.split('/').at(-1)));
}

/** A process may end while it is looked at. */
function quietly(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}

/** Waits until no process and no file of a removed service is left. */
export async function untilNothingIsLeft(folder: string): Promise<void> {
  await until(() => processesOf(folder).length === 0 && !existsSync(folder), {
    what: `${folder} and its processes to be gone`,
    timeoutMs: 15_000,
  });
}

/** A program that starts a service and does nothing more: it tells the service's folder, then is ended by `signal`. */
export async function interruptedProgram(
  service: 'postgres' | 'kafka' | 'rabbitmq',
  signal: NodeJS.Signals,
): Promise<{ folder: string; processesBefore: number }> {
  const child = spawn(process.execPath, [script, service], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  const [folder] = (await once(lines, 'line')) as [string];
  const processesBefore = processesOf(folder).length;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
  return { folder, processesBefore };
}
