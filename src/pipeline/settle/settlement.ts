import type { OutboxEvent, Transaction } from '../capture/event.ts';
import { SettledBeyond } from './beyond.ts';
import { sees, type Snapshot } from '../../postgres/snapshot.ts';
import { byNumber } from './removal.ts';
import { containsEvent, mergeRuns, toRuns, type Identity, type Run } from './settled-runs.ts';
import { portion } from './portion.ts';
import { Watermark } from './watermark.ts';

/** An event that left the relay's care: the broker has it, or it is to be parked. */
export interface Settled {
  readonly event: OutboxEvent;
  readonly parked?: {
    readonly code: string;
    readonly reason: string;
    readonly attempts: number;
  } & ParkedAddress;
  /** Its dead letter is written already. */
  readonly parkedInDatabase?: true;
}

export interface ParkedAddress {
  readonly destination: string | null;
  readonly key: string | null;
}

/** One transaction of the clean-up: what it removes, what it parks, and what the progress row says afterwards. */
export interface Write {
  readonly settled: readonly Settled[];
  /** Sorted, and of each number one (`removal.ts`). */
  readonly removable: readonly Identity[];
  /** Of earlier writes that could not see their rows; among `removable`. */
  readonly retried: readonly Identity[];
  readonly position: bigint;
  /** Undefined: what the row says is good enough. */
  readonly beyond: readonly Run[] | undefined;
}

/** What a process knows beyond the progress row; carried over a lost connection to the database. */
export interface Carried {
  readonly position: bigint;
  readonly beyond: readonly Run[];
  /** Settled, but not yet written: removed and parked before anything else is read. */
  readonly unwritten: readonly Settled[];
  /** Written, but not visible yet, so that their rows are still there. */
  readonly unseen: readonly Identity[];
}

/** What came of a write. */
export interface Findings {
  /** Whose rows it could see. */
  readonly events: number;
  /** How many of these somebody else had removed before. */
  readonly vanished: number;
}

export interface Written {
  /** Rows removed or marked. */
  readonly removed: number;
  /** What the statement saw. */
  readonly snapshot: Snapshot;
}

/** No position reaches it: what was settled before is remembered to the end. */
export const BEYOND_EVERYTHING = 2n ** 64n;
/** A list of so many runs is written each time. */
const SMALL_RUNS = 2_000;
const EVENTS_PER_RUN = 10;

/**
 * The books: what was received, what is settled, what is written, and so what may be acknowledged. Pure.
 *
 * `settle` collects; `nextWrite` turns a bounded part of it into one transaction, in which the progress row and the
 * rows change together. Once that is on disk, `onDisk`, its position may be acknowledged.
 */
export class Settlement {
  private readonly watermark: Watermark;
  private readonly beyond = new SettledBeyond();
  private readonly before: readonly Run[];
  private readonly beforeUntil: bigint;
  private pending: Settled[] = [];
  private inFlight: Write | undefined;
  private readonly notOnDisk: Write[] = [];
  private writtenPosition: bigint;
  /** Transactions that the last write's position covers. */
  private noted = 0;
  private unseen: readonly Identity[] = [];
  private sinceBeyond = 0;
  private readonly smallRuns: number;
  private lastFindings: Findings = { events: 0, vanished: 0 };

  /**
   * `before`: events settled beyond `start` by an earlier session. They come again at or below `beforeUntil` (the end
   * of the log when the session began), so that afterwards the knowledge can go.
   */
  constructor(start: {
    readonly position: bigint;
    readonly before: readonly Run[];
    readonly beforeUntil: bigint;
    /** Delivered by an earlier session, and their rows were not visible to its writes. */
    readonly unseen?: readonly Identity[];
    /** What is known beyond the position is written each time up to so many runs. */
    readonly smallRuns?: number;
  }) {
    this.watermark = new Watermark(start.position);
    this.writtenPosition = start.position;
    this.before = start.before;
    this.beforeUntil = start.beforeUntil;
    this.unseen = start.unseen ?? [];
    this.smallRuns = start.smallRuns ?? SMALL_RUNS;
  }

  begin(transactions: readonly Transaction[], heardLsn: bigint): void {
    for (const transaction of transactions) this.watermark.begin(transaction);
    this.watermark.heard(heardLsn);
  }

  /** Whether this event was settled before; if so it is taken off its transaction, and must not be sent. */
  settledBefore(event: OutboxEvent): boolean {
    if (this.before.length === 0 || !containsEvent(this.before, event)) return false;
    this.watermark.settle(event);
    return true;
  }

  settle(settled: readonly Settled[]): void {
    for (const item of settled) this.pending.push(item);
  }

  get unwritten(): number {
    return this.pending.length + (this.inFlight?.settled.length ?? 0);
  }

  /**
   * A COMMIT arrived after all events of its transaction were settled and written. What comes next would note it, too;
   * without anything next the slot would keep confirming the position before it.
   */
  get hasUnnoted(): boolean {
    this.watermark.advance();
    return this.watermark.completed > this.noted;
  }

  /** Transactions between the settled prefix and what was received: they are remembered one by one. */
  get openTransactions(): number {
    return this.watermark.received - this.watermark.completed;
  }

  /**
   * Rows that a write did not find although they were delivered: the server streams a commit when it is in the log,
   * an instant before other sessions see it, and a busy machine can stretch that instant. They are removed by one of
   * the next writes; left behind they would be taken for orphans, and delivered again.
   */
  get unseenCount(): number {
    return this.unseen.length;
  }

  /** Of the last write. */
  get findings(): Findings {
    return this.lastFindings;
  }

  get oldest(): Transaction | undefined {
    return this.watermark.oldest;
  }

  /** What the progress row says, as far as is known; perhaps not yet on disk. */
  get written(): bigint {
    return this.writtenPosition;
  }

  /** Everything at or below is settled, though the progress row may not say so yet (an idle stream). */
  get settledUpTo(): bigint {
    return this.watermark.advance();
  }

  /** Something of the stream is open, so that its own time tells; or all is settled that the log held at the beginning. */
  get tellsLag(): boolean {
    return this.oldest !== undefined || this.settledUpTo >= this.beforeUntil;
  }

  /** Whether the rows of everything committed up to `lsn` are removed or marked. */
  hasRemovedUpTo(lsn: bigint): boolean {
    if (this.unseen.length > 0) return false;
    return this.writtenPosition >= lsn || (this.unwritten === 0 && this.settledUpTo >= lsn);
  }

  /** The row does not say yet all that is known beyond its position: whoever comes next would deliver it again. */
  get owesBeyond(): boolean {
    return this.sinceBeyond > 0;
  }

  /** `whole`: whatever it costs, the row says afterwards all that is known. */
  nextWrite(maxEvents: number, whole = false): Write {
    if (this.inFlight) throw new RangeError('the last write has no end yet');
    const { settled, events } = this.take(maxEvents);
    const runs = toRuns(events);
    for (const { event } of settled) this.watermark.settle(event);
    const position = this.watermark.advance();
    this.noted = this.watermark.completed;
    this.beyond.add(runs, this.watermark.received);
    this.beyond.forget(this.watermark.completed);
    const beyond = this.beyondIfDue(position, whole ? Infinity : events.length);
    const { removable, retried } = this.withUnseen(events, maxEvents);
    this.inFlight = { settled, removable, retried, position, beyond };
    return this.inFlight;
  }

  /** A bounded part of the unseen goes along: those of a transaction of a million rows wait behind each other. */
  private withUnseen(
    events: readonly OutboxEvent[],
    maxUnseen: number,
  ): { removable: readonly Identity[]; retried: readonly Identity[] } {
    const tried = this.unseen.slice(0, maxUnseen);
    if (tried.length === 0) return { removable: events, retried: tried };
    const { once: removable, again } = byNumber<Identity>([...events, ...tried]);
    const later = new Set(again);
    return { removable, retried: tried.filter((event) => !later.has(event)) };
  }

  /** Of each number one: a second one, after the sequence was set back, waits for the next write. */
  private take(maxEvents: number): { settled: readonly Settled[]; events: readonly OutboxEvent[] } {
    const count = portion(this.pending, maxEvents);
    const front = count === this.pending.length ? this.pending : this.pending.slice(0, count);
    this.pending = count === this.pending.length ? [] : this.pending.slice(count);
    const { once: events, again } = byNumber(front.map(({ event }) => event));
    if (again.length === 0) return { settled: front, events };
    const later = new Set(again);
    this.pending.unshift(...front.filter(({ event }) => later.has(event)));
    return { settled: front.filter(({ event }) => !later.has(event)), events };
  }

  /** The write was committed. Returns the position that may be acknowledged once it is on disk, too. */
  committed(write: Write, { removed, snapshot }: Written): bigint {
    if (write !== this.inFlight) throw new RangeError('not the write in flight');
    this.inFlight = undefined;
    this.notOnDisk.push(write);
    const wanted = write.removable.length;
    const unseen = removed >= wanted ? [] : unseenOf(write, snapshot);
    // Those that had to wait for another write, then those that this one did not see.
    const retried = new Set(write.retried);
    this.unseen = [...this.unseen.filter((event) => !retried.has(event)), ...unseen];
    const parkedBefore = write.settled.filter(({ parkedInDatabase }) => parkedInDatabase).length;
    const events = wanted - unseen.length - parkedBefore;
    this.lastFindings = { events, vanished: Math.max(0, events - removed) };
    if (write.position > this.writtenPosition) this.writtenPosition = write.position;
    return this.writtenPosition;
  }

  /** No crash of the server takes it back any more. Writes come here in their order. */
  onDisk(write: Write): void {
    if (this.notOnDisk.shift() !== write) throw new RangeError('not the oldest write that was committed');
  }

  /** What must not be forgotten when this session ends. Writing again what a crash did not take back changes nothing. */
  carry(): Carried {
    const written = [...this.notOnDisk, ...(this.inFlight ? [this.inFlight] : [])];
    const unwritten = [...written.flatMap(({ settled }) => settled), ...this.pending];
    for (const { event } of this.pending) this.watermark.settle(event);
    const position = this.watermark.advance();
    this.beyond.add(toRuns(unwritten.map(({ event }) => event)), this.watermark.received);
    this.beyond.forget(this.watermark.completed);
    this.pending = [];
    const unseen = [...written.flatMap(({ retried }) => retried), ...this.unseen];
    return { position, beyond: this.knownBeyond(position), unwritten, unseen };
  }

  /**
   * A long list costs more than the events of a write: it is written anew after a tenth as many events as it has runs. What
   * the row does not say yet is delivered again after a crash, and what it says too much never comes again.
   */
  private beyondIfDue(position: bigint, events: number): Run[] | undefined {
    this.sinceBeyond += events;
    const before = position >= this.beforeUntil ? 0 : this.before.length;
    if (this.sinceBeyond * EVENTS_PER_RUN < this.beyond.size + before - this.smallRuns) return undefined;
    this.sinceBeyond = 0;
    return this.knownBeyond(position);
  }

  private knownBeyond(position: bigint): Run[] {
    const runs = this.beyond.runs();
    return position >= this.beforeUntil ? runs : mergeRuns(runs, this.before);
  }
}

/** Of a write that removed fewer rows than it was to: those whose transactions were not visible to it. */
export function unseenOf(
  { settled, retried }: Pick<Write, 'settled' | 'retried'>,
  snapshot: Snapshot,
): Identity[] {
  const streamed = settled.map(({ event }) => event).filter(isFromItsTransaction);
  // Where the snapshot sees the transaction, the row was removed, or the application had done that itself.
  return [...streamed, ...retried]
    .filter(({ xid }) => !sees(snapshot, xid))
    .map(({ seq, xid }) => ({ seq, xid }));
}

/** A restored row carries the id of another server's transaction, about which no snapshot here can say anything. */
function isFromItsTransaction({ xid, transaction }: OutboxEvent): boolean {
  return transaction.xid === xid % 2 ** 32;
}
