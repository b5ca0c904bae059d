import { createDatabase, prepareRelay, type Backlog } from './backlog.ts';
import type { BenchTarget } from './broker.ts';
import { startBuiltRelay } from './built-relay.ts';

/** A relay under measurement: ours, or a peer. */
export interface Contender {
  readonly name: string;
  /** Makes slot, position and whatever else has to exist before the events are written. */
  prepare(backlog: Backlog, target: BenchTarget): Promise<void>;
  /** Also again after a kill: it goes on where the last process came to. */
  start(backlog: Backlog, target: BenchTarget): Promise<Running>;
  /** Of one backlog, after its last process. */
  forget?(backlog: Backlog): Promise<void>;
}

export interface Running {
  readonly pid: number;
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Delivery stops and goes on while the process, and what its compiler has learned, stays. */
  readonly rest?: { pause(): Promise<void>; resume(): Promise<void> };
}

/** `rests`: by SIGSTOP, in which its lease ends; it leads again when it goes on. */
export function outboxRelay(
  name: string,
  env: Readonly<Record<string, string>> = {},
  { rests = false }: { rests?: boolean } = {},
): Contender {
  return {
    name,
    prepare: async (backlog, target) => await prepareRelay(backlog, { ...target.env, ...env }),
    start: async (backlog, target) => {
      const relay = startBuiltRelay(backlog, { ...target.env, ...env });
      const kill = async (signal: NodeJS.Signals): Promise<void> => {
        relay.kill(signal);
        const code = await relay.exit;
        if (signal === 'SIGTERM' && code !== 0) throw new Error(`SIGTERM ended the relay with code ${code}`);
      };
      const signal = async (sent: NodeJS.Signals): Promise<void> => {
        relay.kill(sent);
        await Promise.resolve();
      };
      const rest = { pause: () => signal('SIGSTOP'), resume: () => signal('SIGCONT') };
      return await Promise.resolve({ pid: relay.pid, kill, ...(rests && { rest }) });
    },
  };
}

/** A database that `contender` is prepared for, gone again after `action`. */
export async function withBacklog<T>(
  contender: Contender,
  place: { serverUrl: string; target: BenchTarget },
  action: (backlog: Backlog) => Promise<T>,
): Promise<T> {
  const backlog = await createDatabase(place.serverUrl);
  try {
    await contender.prepare(backlog, place.target);
    return await action(backlog);
  } finally {
    await contender.forget?.(backlog);
    await backlog.drop();
  }
}
