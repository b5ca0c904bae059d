import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Backlog } from './backlog.ts';

const MAIN = fileURLToPath(new URL('../../dist/main.js', import.meta.url));

export interface BuiltRelay {
  readonly pid: number;
  kill(signal: NodeJS.Signals): void;
  /** Its code; null when a signal ended it. */
  readonly exit: Promise<number | null>;
}

/** The relay as the image starts it: compiled, with the image's flags and environment. */
export function startBuiltRelay(backlog: Backlog, env: Readonly<Record<string, string>>): BuiltRelay {
  const child = spawn(
    process.execPath,
    ['--max-semi-space-size=4', '--heap-growing-percent=60', '--no-allocation-site-pretenuring', MAIN, 'run'],
    {
      env: {
        PATH: process.env['PATH'] ?? '',
        DATABASE_URL: backlog.url,
        SLOT_NAME: backlog.name,
        HTTP_HOST: '127.0.0.1',
        HTTP_PORT: '0',
        LOG_LEVEL: 'warn',
        MALLOC_ARENA_MAX: '1',
        ...env,
      },
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  return {
    pid: child.pid as number,
    kill: (signal) => void child.kill(signal),
    exit: new Promise((resolve) => child.once('exit', (code) => resolve(code))),
  };
}
