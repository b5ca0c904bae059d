/** What a look at the table found. */
export interface Look {
  /** Number that it began at; undefined: at the beginning of the table. */
  readonly from: number | undefined;
  /** Smallest number of an undelivered row that is not in hand already. */
  readonly lowest: number | undefined;
  /** Last number that the sequence has given out, read by the look; undefined: nothing is known of the sequence. */
  readonly drawn: number | undefined;
  readonly endedMs: number;
  readonly tookMs: number;
}

/** Numbers up to `upTo` are given out. Only the transactions in `waiting` can still insert one of them. */
interface Round {
  readonly upTo: number;
  readonly waiting: ReadonlySet<string>;
}

const ROUND_INTERVAL_MS = 250;
/** Fewer removed rows than this cost a look nothing that could be noticed. */
const ROUND_NUMBERS = 1_000;
/** A look from the beginning is repeated after so many times what it took: dead rows make one in a thousand slow. */
const FULL_LOOK_REST = 1_000;
const MAX_FULL_LOOK_REST_MS = 5 * 60_000;
const DISTRUST_MS = 10 * 60_000;

/**
 * Where a look at the table may begin. Below it every row is delivered or in hand, and no running transaction can
 * insert one: otherwise an event could be overtaken by a later one of its key.
 *
 * It moves in rounds. A look reads the last number given out. Whoever has drawn a number holds a lock on the sequence
 * until its transaction ends, so a list of the holders, read afterwards, names everyone who may still insert one up to
 * there. Once none of them holds it any more, the next look sees all of these rows that will ever be.
 *
 * What is not drawn in the transaction that inserts (a restored dump, numbers that an application keeps, a sequence set
 * back) is found by a look from the beginning, which is repeated as often as its own cost allows. If it finds something
 * below the bound, no bound is trusted for a while.
 */
export class LowerBound {
  private bound: number | undefined;
  /** No row below it can appear any more. */
  private safe: number | undefined;
  private drawn: number | undefined;
  private round: Round | undefined;
  private askedMs = -Infinity;
  private fullLookDueMs = -Infinity;
  private distrustedUntilMs = -Infinity;

  /** Where the next look begins; undefined: at the beginning of the table. */
  next(nowMs: number): number | undefined {
    return nowMs < this.fullLookDueMs ? this.bound : undefined;
  }

  /** Whether the holders of the sequence's lock are to be read before the next look. */
  wantsHolders(nowMs: number): boolean {
    if (this.drawn === undefined || nowMs < this.distrustedUntilMs) return false;
    if (nowMs - this.askedMs < ROUND_INTERVAL_MS) return false;
    return this.round !== undefined || this.drawn - (this.safe ?? 0) >= ROUND_NUMBERS;
  }

  /** Transactions that hold the sequence's lock, read after the last look and before the next one. */
  heldBy(holders: readonly string[], nowMs: number): void {
    this.askedMs = nowMs;
    if (!this.round) {
      if (this.drawn !== undefined) this.round = { upTo: this.drawn, waiting: new Set(holders) };
      return;
    }
    const { upTo, waiting } = this.round;
    this.round = { upTo, waiting: new Set(holders.filter((holder) => waiting.has(holder))) };
  }

  looked({ from, lowest, drawn, endedMs, tookMs }: Look): void {
    if (from === undefined)
      this.fullLookDueMs = endedMs + Math.min(tookMs * FULL_LOOK_REST, MAX_FULL_LOOK_REST_MS);
    const wentBack = drawn !== undefined && this.drawn !== undefined && drawn < this.drawn;
    this.drawn = drawn;
    if (wentBack || (lowest ?? Infinity) < (this.bound ?? -Infinity)) {
      this.distrust(endedMs);
      return;
    }
    if (this.round?.waiting.size === 0) {
      this.safe = this.round.upTo + 1;
      this.round = undefined;
    }
    this.advance(lowest ?? Infinity);
  }

  /** All that the last look found below `seq` is in hand, or gone. */
  advance(seq: number): void {
    if (this.safe !== undefined) this.bound = Math.max(this.bound ?? -Infinity, Math.min(seq, this.safe));
  }

  private distrust(nowMs: number): void {
    this.bound = undefined;
    this.safe = undefined;
    this.round = undefined;
    this.distrustedUntilMs = nowMs + DISTRUST_MS;
  }
}
