import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { ServiceFolder } from '../../src/demo/services/folder.ts';
import { ReadyWatch } from './ready-watch.ts';
import { until } from './until.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const FAULT_PRELOAD = new URL('fault-preload.ts', import.meta.url).href;

export interface RelayExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface RelayOptions {
  /** Command and arguments; default: `run`. */
  readonly args?: readonly string[];
  /** The whole configuration: nothing of the test's own environment but what a program needs to start is passed on. */
  readonly env?: Readonly<Record<string, string>>;
  /** See `fault.ts`, e.g. `after-publish-before-settle:kill:3`. */
  readonly fault?: string;
  /** Another script than the relay's main file, for tests of this helper. */
  readonly script?: string;
}

/** Ends relays that a test file leaves behind, however it ends. One for all relays of a file. */
let orphans: ServiceFolder | undefined;

/** The relay as a child process. */
export class RelayProcess {
  readonly pid: number;
  readonly stdout: string[] = [];
  readonly stderr: string[] = [];
  /** Resolves when the process has ended and all its output was read. */
  readonly exit: Promise<RelayExit>;
  readonly ready: ReadyWatch;
  private readonly child: ChildProcess;
  private ended: RelayExit | undefined;
  private readonly listeners = new Set<() => void>();

  private constructor(child: ChildProcess, pid: number) {
    this.child = child;
    this.pid = pid;
    this.collect(child.stdout, this.stdout);
    this.collect(child.stderr, this.stderr);
    this.exit = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        this.ended = { code, signal };
        orphans?.delete(pid);
        this.changed();
        resolve(this.ended);
      });
    });
    this.ready = new ReadyWatch(this);
  }

  static start(options: RelayOptions = {}): RelayProcess {
    const { args = ['run'], env = {}, fault, script = MAIN } = options;
    const preload = fault === undefined ? [] : ['--import', FAULT_PRELOAD];
    const child = spawn(process.execPath, [...preload, script, ...args], {
      env: { ...inherited(), ...env, ...(fault !== undefined && { FAULT: fault }) },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    if (child.pid === undefined) throw new Error('the relay did not start');
    orphans ??= new ServiceFolder('relay');
    orphans.add(child.pid, 'SIGKILL');
    return new RelayProcess(child, child.pid);
  }

  get running(): boolean {
    return this.ended === undefined;
  }

  /** Everything it wrote, for error messages. */
  get output(): string {
    return [...this.stdout.map((line) => `out: ${line}`), ...this.stderr.map((line) => `err: ${line}`)].join(
      '\n',
    );
  }

  /** The first line on stdout or stderr that matches, also one that was written before. Throws when it ends first. */
  async waitForLine(pattern: RegExp, timeoutMs = 60_000): Promise<string> {
    const find = (): string | undefined =>
      [...this.stdout, ...this.stderr].find((line) => pattern.test(line));
    return await new Promise<string>((resolve, reject) => {
      const finish = (action: () => void): void => {
        clearTimeout(timer);
        this.listeners.delete(look);
        action();
      };
      const fail = (why: string): void =>
        finish(() => reject(new Error(`${why}; no line matched ${pattern}\n${this.output}`)));
      const look = (): void => {
        const line = find();
        if (line !== undefined) finish(() => resolve(line));
        else if (this.ended !== undefined) fail(`the relay ended with ${JSON.stringify(this.ended)}`);
      };
      const timer = setTimeout(() => fail(`not within ${timeoutMs} ms`), timeoutMs);
      this.listeners.add(look);
      look();
    });
  }

  /** By a signal to itself, which follows the line that tells of it: a SIGCONT in between would be lost. */
  async untilStopped(): Promise<void> {
    const stat = `/proc/${this.pid}/stat`;
    if (!existsSync('/proc/self/stat')) return;
    await until(() => /\) T /.test(readFileSync(stat, 'utf8')), { what: 'the process to be stopped' });
  }

  /** Sends a signal. Does not wait: see `exit`. */
  kill(signal: NodeJS.Signals = 'SIGTERM'): void {
    // Whoever is told to end says that it is not ready any more.
    if (signal === 'SIGTERM') this.ready.end();
    if (this.running) this.child.kill(signal);
  }

  /** For the end of a test: SIGKILL, and wait. Works on a stopped process too. */
  async destroy(): Promise<RelayExit> {
    this.kill('SIGKILL');
    return await this.exit;
  }

  private collect(stream: Readable | null, lines: string[]): void {
    if (stream === null) return;
    createInterface({ input: stream, crlfDelay: Infinity }).on('line', (line) => {
      lines.push(line);
      this.changed();
    });
  }

  private changed(): void {
    for (const listener of this.listeners) listener();
  }
}

/** A relay for as long as `run` takes; it is gone afterwards, whatever happens. */
export async function withRelay(
  env: Readonly<Record<string, string>>,
  run: (relay: RelayProcess) => Promise<void>,
): Promise<void> {
  const relay = RelayProcess.start({ env });
  try {
    await run(relay);
  } finally {
    await relay.destroy();
  }
}

/** The client as well: `KAFKA_CLIENT=platformatic npm test -- test/relay` proves the whole relay with the other one. */
function inherited(): Record<string, string> {
  const names = ['PATH', 'HOME', 'TMPDIR', 'NODE_COMPILE_CACHE', 'KAFKA_CLIENT'];
  return Object.fromEntries(
    names.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  );
}
