import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Waits until this process is gone, however it died (SIGKILL too: the kernel closes its end of the pipe), then ends
 * the servers that are still listed and removes the folder. A handler inside the process could not do this: it never
 * runs on SIGKILL, and signal handlers belong to the program that uses the servers.
 */
const GUARD_SCRIPT = `
trap '' INT TERM HUP
cat >/dev/null
if [ -f "$1/.servers" ]; then
  while read -r pid signal; do kill -s "$signal" -- "-$pid" 2>/dev/null; done <"$1/.servers"
  while read -r pid signal; do
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
      kill -0 -- "-$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -s KILL -- "-$pid" 2>/dev/null
  done <"$1/.servers"
fi
# A command that prepares the folder may outlive this process for a moment, and write into what is being removed.
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  rm -rf -- "$1" 2>/dev/null
  [ -e "$1" ] || break
  sleep 0.2
done
`;

/** A temporary folder of one service, removed together with its server processes when this process ends in any way. */
export class ServiceFolder {
  readonly path: string;
  private readonly guard: ChildProcess;
  private readonly servers = new Map<number, NodeJS.Signals>();

  constructor(name: string) {
    this.path = mkdtempSync(join(realpathSync(tmpdir()), `outbox-relay-${name}-`));
    this.guard = spawn('/bin/sh', ['-c', GUARD_SCRIPT, 'outbox-relay-guard', this.path], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true, // A Ctrl-C in the terminal must reach the program, not its guard.
      cwd: '/',
    });
    this.guard.unref();
    (this.guard.stdin as unknown as { unref(): void }).unref();
  }

  /** The leader of a process group that has to end with this process; `signal` is the one that ends it fastest. */
  add(pid: number, signal: NodeJS.Signals): void {
    this.servers.set(pid, signal);
    this.write();
  }

  /** The process has ended: its number may soon belong to somebody else. */
  delete(pid: number): void {
    if (this.servers.delete(pid)) this.write();
  }

  /** Gives the folder to the user that the server runs as. */
  giveTo(user: { uid: number; gid: number } | undefined): void {
    if (user !== undefined) chownSync(this.path, user.uid, user.gid);
  }

  /** Servers have to be stopped before. Resolves when the folder is gone and nothing is left running. */
  async remove(): Promise<void> {
    rmSync(this.path, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
    if (this.guard.exitCode !== null || this.guard.signalCode !== null) return;
    this.guard.ref();
    const ended = once(this.guard, 'exit');
    this.guard.stdin?.end();
    await ended;
  }

  private write(): void {
    if (!existsSync(this.path)) return;
    const lines = [...this.servers].map(([pid, signal]) => `${pid} ${signal.replace('SIG', '')}\n`);
    writeFileSync(join(this.path, '.servers'), lines.join(''));
  }
}
