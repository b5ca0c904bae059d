import { readFileSync } from 'node:fs';

/** What a process used so far, from the kernel's own accounting. */
export interface Usage {
  readonly cpuSeconds: number;
  /** Highest resident memory, bytes. */
  readonly peakRssBytes: number;
  /** Resident now. */
  readonly rssBytes: number;
}

/** Linux reports CPU time in clock ticks of 1/100 s (`getconf CLK_TCK`). */
const TICKS_PER_SECOND = 100;

/** Of a process that still runs. */
export function usageOf(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The command name, in parentheses, may hold spaces: fields are counted behind it (proc(5)).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return {
    cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
    peakRssBytes: Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024,
    rssBytes: Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024,
  };
}

/** CPU seconds of PostgreSQL's processes that run now: those that send the log, and all others together. */
export function postgresUsage(postmaster: number): { walsenders: number; others: number } {
  const children = readFileSync(`/proc/${postmaster}/task/${postmaster}/children`, 'utf8');
  let walsenders = 0;
  let others = 0;
  for (const pid of children.trim().split(' ').map(Number)) {
    try {
      const seconds = usageOf(pid).cpuSeconds;
      if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('walsender')) walsenders += seconds;
      else others += seconds;
    } catch {
      // It has ended since it was listed.
    }
  }
  return { walsenders, others };
}
