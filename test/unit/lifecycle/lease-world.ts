import { Lease, LeaseWatch, type Clocks, type LeaseRow } from '../../../src/lifecycle/lease.ts';

export interface World {
  /** How far each one's clock is from real time. */
  readonly clocks: readonly number[];
  readonly events: readonly {
    readonly who: number;
    readonly restMs: number;
    readonly thereMs: number;
    readonly backMs: number;
    readonly lost: 'none' | 'question' | 'answer';
  }[];
}

interface Interval {
  readonly who: number;
  readonly token: bigint;
  readonly fromMs: number;
  untilMs: number;
}

type Scheduled = { readonly atMs: number; readonly run: () => void };

/** Three who want the lease, one row, and messages that take their time; in real milliseconds. */
export function simulate(world: World): { overlaps: string[]; leases: number } {
  const queue: Scheduled[] = [];
  const table: { row: LeaseRow | undefined; renewals: number } = { row: undefined, renewals: 0 };
  const intervals: Interval[] = [];
  let nowMs = 0;
  const later = (ms: number, run: () => void): void => {
    const atMs = nowMs + ms;
    const index = queue.findIndex((each) => each.atMs > atMs);
    queue.splice(index < 0 ? queue.length : index, 0, { atMs, run });
  };
  const parties = world.clocks.map((offset, who) => new Party(who, offset));
  const plans = world.clocks.map((_, who) => world.events.filter((event) => event.who === who));

  /** One question at a time, as in the process; an answer that is lost is given up after a while. */
  const act = (who: number): void => {
    const event = plans[who]?.shift();
    const party = parties[who];
    if (!event || !party) return;
    later(Math.min(event.restMs, party.waitMs), () => {
      party.observe(nowMs, intervals);
      const clocks = party.clocks(nowMs);
      const question = party.question();
      later(event.thereMs, () => {
        if (event.lost === 'question') return;
        const answer = question(table);
        if (event.lost === 'answer') return;
        // Later than this the process has given the connection up, and reads no answer.
        if (event.thereMs + event.backMs <= GIVE_UP_MS)
          later(event.backMs, () => party.take(answer, clocks, nowMs, intervals));
      });
      later(Math.min(GIVE_UP_MS, event.lost === 'none' ? event.thereMs + event.backMs : GIVE_UP_MS), () =>
        act(who),
      );
    });
  };
  for (const who of parties.keys()) act(who);
  for (let next = queue.shift(); next; next = queue.shift()) {
    nowMs = next.atMs;
    next.run();
  }
  for (const party of parties) party.observe(nowMs, intervals);
  return { overlaps: overlapping(intervals), leases: intervals.length };
}

const GIVE_UP_MS = 1_500;
const LOOK_MS = 250;

type Table = { row: LeaseRow | undefined; renewals: number };
type Answer =
  | { readonly kind: 'row'; readonly row: LeaseRow | undefined }
  | { readonly kind: 'done'; readonly token: bigint }
  | { readonly kind: 'refused' };

class Party {
  private readonly who: number;
  private readonly offset: number;
  private watch = new LeaseWatch();
  private lease: Lease | undefined;
  private interval: Interval | undefined;
  private seen: LeaseRow | undefined;
  private mayTake = false;
  /** It does not rest longer than until it may take the lease. */
  waitMs = Infinity;

  constructor(who: number, offset: number) {
    this.who = who;
    this.offset = offset;
  }

  clocks(realMs: number): Clocks {
    return { monotonicMs: realMs + this.offset, wallMs: realMs - this.offset };
  }

  question(): (table: Table) => Answer {
    const { lease, seen, who } = this;
    if (lease) return (table) => renew(table, lease.token, who);
    if (this.mayTake) return (table) => take(table, seen, who);
    return (table) => ({ kind: 'row', row: table.row });
  }

  take(answer: Answer, sent: Clocks, realMs: number, intervals: Interval[]): void {
    this.observe(realMs, intervals);
    if (answer.kind === 'row') {
      this.seen = answer.row;
      const waitMs = this.watch.waitMs(answer.row, this.clocks(realMs).monotonicMs);
      this.waitMs = answer.row?.holder === String(this.who) ? 0 : Math.min(LOOK_MS, waitMs);
      this.mayTake = this.waitMs === 0;
      return;
    }
    this.mayTake = false;
    this.waitMs = Infinity;
    if (answer.kind === 'refused') {
      this.lease?.end();
      this.lease = undefined;
      this.interval = undefined;
      this.watch = new LeaseWatch();
      return;
    }
    if (this.lease) this.lease.renewed(sent);
    else this.lease = new Lease(answer.token, sent);
    this.observe(realMs, intervals);
  }

  /** From when to when it may start something, found by asking the lease itself millisecond by millisecond. */
  observe(realMs: number, intervals: Interval[]): void {
    const { lease } = this;
    if (!lease) return;
    if (lease.holds(this.clocks(realMs)) && !this.interval) {
      this.interval = { who: this.who, token: lease.token, fromMs: realMs, untilMs: realMs };
      intervals.push(this.interval);
    }
    if (!this.interval) return;
    while (this.interval.untilMs < realMs && lease.holds(this.clocks(this.interval.untilMs + 1)))
      this.interval.untilMs++;
    if (this.interval.untilMs < realMs) this.interval = undefined;
  }
}

function renew(table: Table, token: bigint, who: number): Answer {
  if (table.row?.token !== token || table.row.holder !== String(who)) return { kind: 'refused' };
  table.row = { ...table.row, renewedAt: String(++table.renewals) };
  return { kind: 'done', token };
}

function take(table: Table, seen: LeaseRow | undefined, who: number): Answer {
  const { row } = table;
  if (row && (row.token !== seen?.token || row.holder !== seen.holder || row.renewedAt !== seen.renewedAt))
    return { kind: 'refused' };
  const token = (row?.token ?? 0n) + 1n;
  table.row = { holder: String(who), token, renewedAt: String(++table.renewals) };
  return { kind: 'done', token };
}

function overlapping(intervals: readonly Interval[]): string[] {
  return intervals.flatMap((a) =>
    intervals
      .filter((b) => b.token > a.token && b.fromMs <= a.untilMs && b.who !== a.who)
      .map(
        (b) =>
          `${JSON.stringify({ ...a, token: Number(a.token) })} and ${JSON.stringify({ ...b, token: Number(b.token) })}`,
      ),
  );
}
