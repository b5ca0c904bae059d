import { RelayError } from '../../../errors/errors.ts';
import { Backoff } from '../../../lifecycle/backoff.ts';
import { orAborted } from '../../../lifecycle/wait.ts';

/** Attempts to connect: one at a time, shared by everyone who wants the connection. */
export class Dialer {
  private readonly dial: () => Promise<void>;
  private attempt: Promise<void> | undefined;
  private redials = 0;

  constructor(dial: () => Promise<void>) {
    this.dial = dial;
  }

  /** Joins the attempt under way, or makes one. An abort ends the waiting, not the attempt: others may share it. */
  async once(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.attempt ??= this.dial().finally(() => (this.attempt = undefined));
    // Without a handler of its own, an attempt that fails when nobody waits any more would end the process.
    this.attempt.catch(() => undefined);
    await orAborted(this.attempt, signal);
  }

  /**
   * Attempts until one succeeds, whoever made it; a later call takes over from an earlier one.
   * @param away whether the connection is still wanted and missing.
   * @param onFailure returns false to give up.
   */
  async untilConnected(
    signal: AbortSignal,
    away: () => boolean,
    onFailure: (error: RelayError) => boolean,
  ): Promise<void> {
    const mine = ++this.redials;
    const backoff = new Backoff({ firstMs: 100, maxMs: 5000 });
    while (mine === this.redials && away()) {
      const error = await this.failure(signal);
      if (error === undefined || mine !== this.redials || !away()) return;
      if (!onFailure(error)) return;
      await backoff.wait(signal);
    }
  }

  private async failure(signal: AbortSignal): Promise<RelayError | undefined> {
    try {
      await this.once(signal);
      return undefined;
    } catch (error) {
      if (error instanceof RelayError) return error;
      if (signal.aborted) return undefined;
      throw error;
    }
  }
}
