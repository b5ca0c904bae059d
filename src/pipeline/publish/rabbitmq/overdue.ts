/** How long a broker may keep a publisher blocked before its connection is opened anew: an alarm can last for hours. */
const BLOCKED_DEADLINE_MS = 30 * 60_000;

/** Times are of one monotonic clock, milliseconds. */
export interface Waiting {
  readonly nowMs: number;
  /** Since when the oldest message waits for its answer. */
  readonly sinceMs: number;
  /** Set while the broker has the publisher blocked. */
  readonly blockedAtMs: number | undefined;
  /** When the broker last began to take messages. */
  readonly unblockedAtMs: number;
  readonly confirmTimeoutMs: number;
}

/**
 * Whether the broker should have answered by now. A blocked broker has said that it will not, and heartbeats watch the
 * connection meanwhile; yet it gets a deadline, or a lost "unblocked" would hold the relay up for ever.
 */
export function isOverdue(waiting: Waiting): boolean {
  const { nowMs, sinceMs, blockedAtMs, unblockedAtMs, confirmTimeoutMs } = waiting;
  if (blockedAtMs !== undefined) return nowMs - blockedAtMs > Math.max(BLOCKED_DEADLINE_MS, confirmTimeoutMs);
  return nowMs - Math.max(sinceMs, unblockedAtMs) > confirmTimeoutMs;
}
