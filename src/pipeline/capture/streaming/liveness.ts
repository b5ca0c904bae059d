export interface LivenessInput {
  readonly nowMs: number;
  /** When the server was last heard (any byte). */
  readonly heardAtMs: number;
  /** When an answer was last asked for. */
  readonly askedAtMs: number;
  readonly deadlineMs: number;
  /** Reading is held back by the relay itself: silence then says nothing about the server. */
  readonly readingHeld: boolean;
}

export type LivenessVerdict = 'alive' | 'ask' | 'dead';

/** The shortest silence that counts: an idle server may say nothing for half of its own wal_sender_timeout. */
export const MIN_LIVENESS_DEADLINE_MS = 60_000;

/**
 * Silence is not death: at a third of the deadline the server is asked to answer, and again at every further third;
 * only a whole deadline without a byte ends the connection.
 */
export function evaluateLiveness(input: LivenessInput): LivenessVerdict {
  const { nowMs, heardAtMs, askedAtMs, deadlineMs, readingHeld } = input;
  if (readingHeld) return 'alive';
  const silentMs = nowMs - heardAtMs;
  if (silentMs >= deadlineMs) return 'dead';
  const third = deadlineMs / 3;
  return silentMs >= third && nowMs - askedAtMs >= third ? 'ask' : 'alive';
}
