import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ServiceFolder } from './folder.ts';

export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

export interface ServerCommand {
  readonly folder: ServiceFolder;
  /** Name of the log in the folder, and of the server in messages. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  readonly user?: ServerUser | undefined;
  /** Ends the whole server fastest without leaving anything behind. */
  readonly killSignal?: NodeJS.Signals;
}

/** A running server: its own process group, its output in a file (a pipe would block it or die with its reader). */
export class ServerProcess {
  readonly pid: number;
  readonly name: string;
  private readonly child: ChildProcess;
  private readonly logFile: string;

  private constructor(child: ChildProcess, pid: number, name: string, logFile: string) {
    this.child = child;
    this.pid = pid;
    this.name = name;
    this.logFile = logFile;
  }

  static async start(server: ServerCommand): Promise<ServerProcess> {
    const logFile = join(server.folder.path, `${server.name}.log`);
    const log = openSync(logFile, 'a');
    const child = spawn(server.command, [...server.args], {
      cwd: server.folder.path,
      env: server.env ?? process.env,
      stdio: ['ignore', log, log],
      detached: true,
      ...server.user,
    });
    closeSync(log);
    await once(child, 'spawn');
    const { pid } = child;
    if (pid === undefined) throw new Error(`${server.name} did not start`);
    server.folder.add(pid, server.killSignal ?? 'SIGKILL');
    child.once('exit', () => server.folder.delete(pid));
    // A test file that forgets a server must still be able to end; the folder's guard then ends the server.
    child.unref();
    return new ServerProcess(child, pid, server.name, logFile);
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** The last lines that the server wrote, for error messages. */
  logTail(lines = 15): string {
    return readFileSync(this.logFile, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  }

  /** Waits until `check` holds. Throws with the end of the log when the server ends or `timeoutMs` pass before. */
  async untilReady(check: () => boolean | Promise<boolean>, timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!(await check())) {
      if (!this.running) throw new Error(`${this.name} ended while it started:\n${this.logTail()}`);
      if (performance.now() > deadline) {
        throw new Error(`${this.name} was not ready within ${timeoutMs} ms:\n${this.logTail()}`);
      }
      await sleep(25);
    }
  }

  /** Sends `signal` and waits for the end; SIGKILL to the whole group after `timeoutMs`. */
  async stop(signal: NodeJS.Signals, timeoutMs = 30_000): Promise<void> {
    if (!this.running) return;
    this.child.ref();
    const ended = once(this.child, 'exit');
    this.child.kill(signal);
    // A stopped process can't act on any other signal than SIGKILL.
    if (signal !== 'SIGKILL') this.child.kill('SIGCONT');
    const timer = setTimeout(() => this.killGroup(), timeoutMs);
    await ended;
    clearTimeout(timer);
    if (signal === 'SIGKILL') this.killGroup();
  }

  private killGroup(): void {
    try {
      process.kill(-this.pid, 'SIGKILL');
    } catch {
      // The group has ended by itself.
    }
  }
}
