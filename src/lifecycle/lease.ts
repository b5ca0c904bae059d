/**
 * Who publishes, decided without comparing clocks of different machines: a holder counts its lease from before it sent
 * the renewal, whoever waits counts from after it saw that renewal, each on its own clock. Source: the leader election
 * of Kubernetes. Pure.
 */

/** How long a renewal holds. */
export const LEASE_MS = 3_000;
/** So much later than the holder must have ended may a successor begin: what was started at the last moment arrives meanwhile. */
export const GRACE_MS = 500;

/** Both clocks, milliseconds: the monotonic one stands still while the machine sleeps, the other may be set. */
export interface Clocks {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

export function readClocks(): Clocks {
  return { monotonicMs: performance.now(), wallMs: Date.now() };
}

/** What the holder knows of its own lease. */
export class Lease {
  /** Grows with each change of the leader; every write to the database names it. */
  readonly token: bigint;
  private sent: Clocks;
  private lost = false;

  constructor(token: bigint, sent: Clocks) {
    this.token = token;
    this.sent = sent;
  }

  /** `sent`: read before the renewal was sent that is now known to be done. */
  renewed(sent: Clocks): void {
    this.sent = sent;
  }

  /** Somebody else has it, or it was given back. */
  end(): void {
    this.lost = true;
  }

  get ended(): boolean {
    return this.lost;
  }

  /** Whether something may be started at this moment, by both clocks. A clock that was set back proves nothing. */
  holds(now: Clocks): boolean {
    if (this.lost) return false;
    const wallAgeMs = now.wallMs - this.sent.wallMs;
    return now.monotonicMs - this.sent.monotonicMs < LEASE_MS && wallAgeMs < LEASE_MS && wallAgeMs >= 0;
  }
}

/** The row of the lease as it was read; `renewedAt` only to tell one renewal from another. */
export interface LeaseRow {
  readonly holder: string | null;
  readonly token: bigint;
  readonly renewedAt: string | null;
}

/** What one who waits has seen. */
export class LeaseWatch {
  private row: LeaseRow | undefined;
  private sinceMs = 0;

  /**
   * Milliseconds until the lease may be taken; 0: now, provided that the row is still the one given here.
   * `nowMs`: monotonic, read after the row arrived.
   */
  waitMs(row: LeaseRow | undefined, nowMs: number): number {
    if (!row?.holder) return 0;
    const same =
      this.row !== undefined &&
      this.row.holder === row.holder &&
      this.row.token === row.token &&
      this.row.renewedAt === row.renewedAt;
    if (!same) {
      this.row = row;
      this.sinceMs = nowMs;
    }
    return Math.max(0, this.sinceMs + LEASE_MS + GRACE_MS - nowMs);
  }
}
