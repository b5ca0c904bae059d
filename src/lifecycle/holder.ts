import { randomUUID } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/**
 * Names this process so that another one on the same machine can tell whether it still exists: a relay that is started
 * again after a crash need not wait for the lease of the process that died. Only Linux tells; elsewhere, in another
 * container or on another machine nothing is known, and the lease decides.
 */
export function nameOfThisProcess(): string {
  const origin = readOrigin();
  const started = readStart(process.pid);
  const unique = origin && started ? `${origin}/${process.pid}/${started}` : randomUUID();
  return `${hostname()}/${unique}`;
}

/** True only when the process of that name certainly exists no more. */
export function isProvenDead(holder: string): boolean {
  const [, boot, namespace, pid, started] = holder.split('/');
  if (!pid || !started || `${boot}/${namespace}` !== readOrigin()) return false;
  return !exists(Number(pid)) || (readStart(Number(pid)) ?? started) !== started;
}

/** This boot of this machine, and which processes can be seen from here. */
function readOrigin(): string | undefined {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    const namespace = /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0];
    return namespace === undefined ? undefined : `${boot}/${namespace}`;
  } catch {
    return undefined;
  }
}

/** Not asked of /proc, which may hide the processes of other users. */
function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

/** When the process began, in ticks since the boot; 'dead' when it only waits for its parent; undefined: can't be known. */
function readStart(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // After the name, which may contain anything: the state, and 19 fields later the start. proc(5).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? 'dead' : fields[19];
  } catch {
    return undefined;
  }
}
