import { setTimeout as sleep } from 'node:timers/promises';
import type { RelayProcess } from './relay-process.ts';

const INTERVAL_MS = 500;
/** Longer than a busy machine lets a healthy relay wait; a stopped process does not answer at all. */
const ANSWER_TIMEOUT_MS = 2_000;

/**
 * Asks /readyz from the relay's start until it ends or is told to: whatever happens around a relay, it stays ready, or
 * the service beside which it runs would be taken out of its load balancer.
 */
export class ReadyWatch {
  /** Every no after the first yes, in the relay's words. No answer is none. */
  readonly refusals: string[] = [];
  /** How often it said yes. */
  times = 0;
  private readonly over = new AbortController();

  constructor(relay: RelayProcess) {
    this.watch(relay).catch(() => undefined);
  }

  end(): void {
    this.over.abort();
  }

  private async watch(relay: RelayProcess): Promise<void> {
    const { signal } = this.over;
    const line = await relay.waitForLine(/"message":"metrics and health are served"/);
    const { port } = JSON.parse(line) as { port: number };
    while (!signal.aborted && relay.running) {
      const refusal = await ask(port);
      if (signal.aborted) return;
      if (refusal === '') this.times++;
      else if (refusal !== undefined && this.times > 0) this.refusals.push(refusal);
      await sleep(INTERVAL_MS, undefined, { signal, ref: false });
    }
  }
}

/** Empty: ready. Undefined: no answer. */
async function ask(port: number): Promise<string | undefined> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`, {
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
      headers: { connection: 'close' },
    });
    const body = await response.text();
    return response.ok ? '' : `${response.status} ${body.trim()}`;
  } catch {
    return undefined;
  }
}
