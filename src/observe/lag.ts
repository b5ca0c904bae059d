/** All times are milliseconds on the clock of the database (`DatabaseClock`), so that no skew between hosts enters. */
export interface LagFacts {
  /** Commit time of the oldest event that the stream brought and that is not settled. */
  readonly oldestUnsettledCommitMs: number | undefined;
  /** What the probe of the table saw: undelivered rows that the stream has not brought, since when. */
  readonly tableSinceMs: number | undefined;
  /** Rows are deleted at once, so that a stream alone tells of them: since when there is none. */
  readonly streamGoneMs?: number | undefined;
  /** When the database last answered anything; at the start: when the process began to ask. */
  readonly lastAnswerMs: number;
  readonly nowMs: number;
}

/**
 * The probe asks once a second: an answer that is late by more than this is silence. Below it the last answer still
 * holds, or a drained outbox would never show 0.
 */
export const SILENCE_MS = 3000;

/**
 * Age of the oldest committed event that is not settled, seconds. 0 when drained; never negative; grows in real time
 * while nothing is settled, also while the database is silent and may hold commits that nobody here has seen.
 */
export function lagSeconds(facts: LagFacts): number {
  const since = [facts.oldestUnsettledCommitMs, facts.tableSinceMs, facts.streamGoneMs];
  if (facts.nowMs - facts.lastAnswerMs > SILENCE_MS) since.push(facts.lastAnswerMs);
  const oldestMs = Math.min(...since.filter((time) => time !== undefined));
  return Math.max(0, (facts.nowMs - oldestMs) / 1000 || 0);
}

/**
 * Since when a row may wait that was not the oldest at the look before and is now: not before the look that sees it, as
 * long as looks come in time; after a silence, perhaps since the look before. Any one clock.
 */
export function waitingSinceMs(lookBeforeMs: number, nowMs: number): number {
  return nowMs - lookBeforeMs > SILENCE_MS ? lookBeforeMs : nowMs;
}

/** Looks at the table, one a second; any one clock. */
export interface Looks {
  readonly beforeMs: number;
  readonly lastMs: number;
}

/** Looks come in time while no more than this lies between them, and since the last. */
const REGULAR_MS = 1_200;
const YOUNG_MS = 500;

/**
 * A row that the last look met by chance on its way: it is gone milliseconds later, and would count until the next look,
 * so that an outbox without any delay showed half a second. Where looks are late it counts, since it may have waited
 * between them.
 */
export function isGlimpse(sinceMs: number, { beforeMs, lastMs }: Looks, nowMs: number): boolean {
  const regular = lastMs - beforeMs <= REGULAR_MS && nowMs - lastMs <= REGULAR_MS;
  return regular && lastMs - sinceMs < YOUNG_MS;
}

/** The row that comes first in the table, as looks found it. Times of one clock. */
export interface OldestRow {
  readonly seenMs: number;
  /** The time that the row gives itself: not after its commit. */
  readonly createdMs: number | undefined;
  /** From then on each look found rows waiting. */
  readonly backlogSinceMs: number;
}

/**
 * Since when the oldest row of the table waits. Where a pipeline holds something, that is older, and tells a commit's own
 * time: a first sight is enough. Without one, rows come and go in somebody else's backlog, each for the first time, and
 * count from their own time (`standby`). A leader whose pipeline is empty has read nothing of its backlog yet, or waits for
 * a write: the same, but not from before the backlog, since a commit can be much later than its row.
 */
export function rowSinceMs(row: OldestRow, role: 'holds' | 'empty' | 'standby'): number {
  const { seenMs, createdMs = seenMs, backlogSinceMs } = row;
  if (role === 'holds') return seenMs;
  const ownMs = Math.min(seenMs, createdMs);
  return role === 'standby' ? ownMs : Math.min(seenMs, Math.max(ownMs, backlogSinceMs));
}

/** Estimates the clock of the database from its answers and a local clock that only runs forward (monotonic). */
export class DatabaseClock {
  private offsetMs: number | undefined;

  /** `databaseMs` was read by a query that was sent at `sentMs` and answered at `answeredMs`, both monotonic. */
  observe(databaseMs: number, sentMs: number, answeredMs: number): void {
    this.offsetMs = databaseMs - (sentMs + answeredMs) / 2;
  }

  /** `undefined` until the first answer. */
  at(monotonicMs: number): number | undefined {
    return this.offsetMs === undefined ? undefined : monotonicMs + this.offsetMs;
  }
}
