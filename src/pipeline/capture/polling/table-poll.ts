import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { faultPoint } from '../../../lifecycle/fault-point.ts';
import { readLogEnds } from '../../../postgres/log-position.ts';
import type { Batch, Source } from '../source.ts';
import { untilStandbysHave } from '../streaming/failover-slot.ts';
import { LowerBound } from './lower-bound.ts';
import { readDrawers, readNumbering, type Numbering } from './numbering.ts';
import type { Identity } from '../../settle/settled-runs.ts';
import { PAGE_ROWS, TableReader, type SeenRow } from './table-reader.ts';
import { pause } from '../../../lifecycle/wait.ts';

export interface TablePollOptions {
  readonly config: Config;
  readonly client: Client;
  /** Writes something, so that the log is flushed up to there. */
  readonly flush: () => Promise<void>;
}

const MAX_ROWS_CAUGHT_UP = 500;
/** Dead rows under an old snapshot make a look slow: it rests as long as it took, so that settling has its turn. */
const SLOW_LOOK_MS = 50;
const MIN_IDLE_MS = 10;
const MAX_IDLE_MS = 200;

/**
 * Delivers whatever is undelivered, for ever, by `seq`. Being delivered is a property of the row, not of a cursor: what
 * commits late is found by a later look, however low its number.
 *
 * Each look is one statement, from a number below which nothing can come any more. With a cursor, or in pages, a row
 * could be seen whose predecessor of the same key has a number that was passed before it was committed.
 */
export class TablePoll implements Source {
  private readonly options: TablePollOptions;
  /** Handed on and still in the table, as far as the next look can tell. */
  private readonly taken = new Map<number, SeenRow['xid']>();
  private written: Identity[] = [];
  private backlogGone = false;
  private completeLookMs = Number.NEGATIVE_INFINITY;
  /** The same look by the server's clock. */
  private completeLookAtMs = Number.NEGATIVE_INFINITY;
  private ended = false;
  private readonly bound = new LowerBound();
  private wokenSinceLook = false;
  private endRest: (() => void) | undefined;

  constructor(options: TablePollOptions) {
    this.options = options;
  }

  /** A look found no backlog, and hardly anything waits for the broker. */
  get caughtUp(): boolean {
    return this.backlogGone;
  }

  /** Monotonic clock: the latest look that left nothing for the next one, and was handed on, had not begun before. */
  get completeLookBeganMs(): number {
    return this.completeLookMs;
  }

  /** Looks no more; what was handed on is still to be delivered. */
  end(): void {
    this.ended = true;
    this.wake();
  }

  /** Their rows are removed or marked. */
  removed(events: readonly Identity[]): void {
    for (const event of events) this.written.push(event);
  }

  /** Something was written: the next look need not wait for its time. */
  wake(): void {
    this.wokenSinceLook = true;
    this.endRest?.();
  }

  async *batches(signal: AbortSignal): AsyncGenerator<Batch> {
    const { config, client } = this.options;
    const reader = new TableReader(config, client);
    const numbering = config.outbox.numbered ? await readNumbering(client, config.outbox) : undefined;
    let idleMs = MIN_IDLE_MS;
    while (!signal.aborted && !this.ended) {
      this.forgetRemoved();
      this.wokenSinceLook = false;
      const beganMs = performance.now();
      const { fresh, atMs } = await this.look(reader, numbering);
      const lookMs = performance.now() - beganMs;
      for await (const batch of reader.rows(fresh, signal, this.completeLookAtMs)) {
        if (!(await this.untilKept(signal))) return;
        // Only what was really read: the application may have deleted the others meanwhile.
        for (const { seq, xid } of batch.events)
          this.taken.set(seq, config.outbox.numbered ? undefined : xid);
        faultPoint('during-poll');
        yield batch;
      }
      if (fresh.length > 0) this.bound.advance((fresh.at(-1)?.seq ?? 0) + 1);
      const more = fresh.length === PAGE_ROWS;
      if (!more) {
        this.completeLookMs = beganMs;
        this.completeLookAtMs = atMs;
      }
      this.backlogGone = !more && this.taken.size - this.written.length < MAX_ROWS_CAUGHT_UP;
      idleMs = fresh.length > 0 ? MIN_IDLE_MS : Math.min(idleMs * 2, MAX_IDLE_MS);
      // However many notifications come, a look is not made sooner than this.
      const leastMs = Math.max(more ? 0 : MIN_IDLE_MS, lookMs > SLOW_LOOK_MS ? lookMs : 0);
      if (leastMs > 0) await pause(leastMs, signal);
      if (!more && idleMs > leastMs) await this.restUntilWoken(idleMs - leastMs, signal);
    }
  }

  acknowledge(): void {
    // The row itself is the acknowledgement.
  }

  /** The next rows that are not in hand, a page at most. */
  private async look(
    reader: TableReader,
    numbering: Numbering | undefined,
  ): Promise<{ fresh: readonly SeenRow[]; atMs: number }> {
    const { bound, taken } = this;
    if (numbering && bound.wantsHolders(performance.now()))
      bound.heldBy(await readDrawers(this.options.client, numbering), performance.now());
    const from = bound.next(performance.now());
    const inHand = from === undefined ? taken.size : countFrom(taken, from);
    const { rows, ...answer } = await reader.undelivered({ limit: inHand + PAGE_ROWS, from, numbering });
    const fresh = rows
      .filter(({ seq, xid }) => !taken.has(seq) || taken.get(seq) !== xid)
      .slice(0, PAGE_ROWS);
    bound.looked({ ...answer, from, lowest: fresh[0]?.seq, endedMs: performance.now() });
    return { fresh, atMs: answer.atMs };
  }

  private async restUntilWoken(ms: number, signal: AbortSignal): Promise<void> {
    if (this.wokenSinceLook || signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    const end = (): void => resolve();
    this.endRest = end;
    signal.addEventListener('abort', end, { once: true });
    await promise;
    signal.removeEventListener('abort', end);
    clearTimeout(timer);
    this.endRest = undefined;
  }

  /** Only before a look begins: one that began earlier may still see what was removed meanwhile. */
  private forgetRemoved(): void {
    const { numbered } = this.options.config.outbox;
    for (const { seq, xid } of this.written)
      if (numbered || this.taken.get(seq) === xid) this.taken.delete(seq);
    this.written = [];
  }

  /**
   * A commit with synchronous_commit=off can be seen before it is on disk, and a crash takes it back; with SLOT_FAILOVER
   * the same goes for what a standby lacks: an event that nobody can find any more must not have been published. False
   * when the signal aborts first.
   */
  private async untilKept(signal: AbortSignal): Promise<boolean> {
    const { client, config, flush } = this.options;
    let inserted: bigint | undefined;
    for (;;) {
      const ends = await readLogEnds(client);
      inserted ??= ends.inserted;
      if (ends.flushed >= inserted) break;
      await flush();
    }
    if (!config.slotFailover) return true;
    await untilStandbysHave(client, inserted, signal);
    return !signal.aborted;
  }
}

function countFrom(taken: ReadonlyMap<number, unknown>, from: number): number {
  let count = 0;
  for (const seq of taken.keys()) if (seq >= from) count++;
  return count;
}
