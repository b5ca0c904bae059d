import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ExhibitReader } from '../../support/exhibits.ts';
import { RelayProcess, type RelayExit } from '../../support/relay-process.ts';
import type { RelaySample } from './checker.ts';
import { Line } from './line.ts';

const SCRIPT = fileURLToPath(new URL('clocked-relay.ts', import.meta.url));
/** The relay of this checkout. */
export const MAIN = new URL('../../../src/main.ts', import.meta.url).href;

const RESTART_AFTER_MS = 300;
/** Longer than SHUTDOWN_TIMEOUT_MS. */
const EXIT_TIMEOUT_MS = 40_000;
const PAGE_BYTES = 4096;

export interface ReplicaOptions {
  readonly databaseUrl: string;
  /** Without the database's URL. */
  readonly env: Readonly<Record<string, string>>;
  readonly main: string;
  readonly pod: boolean;
}

/** One relay as an orchestrator keeps it: started again whenever it has ended, unless a fault holds it down. */
export class Replica {
  readonly line: Line;
  /** Of every process that has ended by itself, not by a signal of a fault that came before it could listen for any. */
  readonly ownExits: RelayExit[] = [];
  readonly output: string[] = [];
  private readonly options: ReplicaOptions;
  private readonly exhibits: ExhibitReader;
  private process: RelayProcess | undefined;
  private startedMs = 0;
  private disturbances = 0;
  /** Who wants it to be down. */
  private held = false;
  private extra: Readonly<Record<string, string>> = {};

  private constructor(options: ReplicaOptions, line: Line, exhibits: ExhibitReader) {
    this.options = options;
    this.line = line;
    this.exhibits = exhibits;
  }

  static async start(options: ReplicaOptions): Promise<Replica> {
    const replica = new Replica(options, await Line.start(options.databaseUrl), await ExhibitReader.open());
    replica.launch();
    return replica;
  }

  /** Variables over the schedule's, from the next start on. */
  configure(extra: Readonly<Record<string, string>>): void {
    this.extra = extra;
  }

  signal(name: NodeJS.Signals): void {
    this.process?.kill(name);
  }

  /** It ends by this signal, and stays down until `release`. */
  async hold(name: 'SIGKILL' | 'SIGTERM'): Promise<RelayExit | undefined> {
    this.held = true;
    const { process } = this;
    if (process === undefined) return undefined;
    process.kill(name);
    // A drain waits for what is away.
    const exit = await Promise.race([process.exit, sleep(EXIT_TIMEOUT_MS, undefined, { ref: false })]);
    if (exit === undefined) await process.destroy();
    // Only just started: nothing was begun, and nothing listened for signals.
    if (exit?.signal === name && process.output === '') return undefined;
    return exit;
  }

  release(): void {
    this.held = false;
    if (this.process?.running !== true) this.launch();
  }

  async sample(): Promise<RelaySample> {
    const { process, startedMs } = this;
    if (process?.running !== true)
      return { startedMs, undisturbed: false, lagSeconds: undefined, rssBytes: 0 };
    const lag = await this.exhibits.lag().catch(() => Number.NaN);
    return {
      startedMs,
      undisturbed: !this.held && this.disturbances === 0,
      lagSeconds: Number.isNaN(lag) ? undefined : lag,
      rssBytes: residentBytes(process.pid),
    };
  }

  /** A fault works on it, until the function is called that this returns. */
  disturb(): () => void {
    this.disturbances++;
    return () => void this.disturbances--;
  }

  async waitForLine(pattern: RegExp, timeoutMs: number): Promise<void> {
    await this.process?.waitForLine(pattern, timeoutMs);
  }

  async remove(): Promise<void> {
    this.held = true;
    await this.process?.destroy();
    await this.line.close();
  }

  private launch(): void {
    const { options } = this;
    const process = RelayProcess.start({
      script: SCRIPT,
      env: {
        ...options.env,
        ...this.extra,
        ...this.exhibits.env,
        DATABASE_URL: this.line.url(options.databaseUrl),
        RELAY_MAIN: options.main,
        ...(options.pod && { ALONE: '1' }),
      },
    });
    this.process = process;
    this.startedMs = Date.now();
    void this.supervise(process);
  }

  private async supervise(process: RelayProcess): Promise<void> {
    const exit = await process.exit;
    this.output.push(process.output, JSON.stringify(exit));
    if (this.held) return;
    if (!(exit.signal === 'SIGUSR2' && process.output === '')) this.ownExits.push(exit);
    await sleep(RESTART_AFTER_MS);
    if (!this.held && this.process === process) this.launch();
  }
}

/** 0 when it has just ended. */
function residentBytes(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * PAGE_BYTES;
  } catch {
    return 0;
  }
}
