import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { qualified, quoteIdentifier } from '../../postgres/identifier.ts';

/** Rows looked at in one statement, and so the most that it deletes: about a millisecond, which a writer may have to wait. */
const PAGE_ROWS = 100;
/** Undelivered rows, one page of them after the other, may hide old ones behind them; beyond it is only more backlog. */
const MAX_BARREN_PAGES = 200;
/** From the beginning again: what was delivered late lies below the place that earlier walks have reached. */
const RESTART_MS = 3_600_000;

interface Page {
  readonly last: string | null;
  readonly kept: string | null;
  readonly seen: string;
  readonly young: string;
  readonly gone: string;
}

const BEFORE_ALL = '-9223372036854775808';

/**
 * Deletes marked rows some time after their delivery. No index tells the time of a delivery, and one more would cost
 * every writer; so it walks along the index of `seq`, which is nearly the order of delivery, a bounded page a step, and
 * ends where rows are too young. It begins where the last walk kept its first row: what it deleted leaves dead index
 * entries behind, which an old snapshot elsewhere would make it read again and again.
 */
export class MarkRetention {
  private readonly retentionMs: number;
  /** For tests of its plan. */
  readonly statement: string;
  private walk = { after: BEFORE_ALL, barrenPages: 0 };
  private firstKept: string | undefined;
  private restartAtMs = 0;

  constructor(config: Config, retentionMs: number) {
    this.retentionMs = retentionMs;
    this.statement = statementOf(config);
  }

  /** One page. Resolves with whether more is to be done now. */
  async step(client: Client, nowMs: number): Promise<boolean> {
    const { rows } = await client.query<Page>(this.statement, [this.walk.after, this.retentionMs]);
    const [page] = rows as [Page];
    this.firstKept ??= page.kept ?? undefined;
    const barren = page.gone === '0';
    this.walk = {
      after: page.last ?? this.walk.after,
      barrenPages: barren ? this.walk.barrenPages + 1 : 0,
    };
    const full = Number(page.seen) === PAGE_ROWS;
    if (full && !(barren && page.young !== '0') && this.walk.barrenPages < MAX_BARREN_PAGES) return true;
    this.endWalk(nowMs);
    return false;
  }

  private endWalk(nowMs: number): void {
    const begin = this.firstKept === undefined ? this.walk.after : (BigInt(this.firstKept) - 1n).toString();
    const restart = nowMs >= this.restartAtMs;
    if (restart) this.restartAtMs = nowMs + RESTART_MS;
    this.walk = { after: restart ? BEFORE_ALL : begin, barrenPages: 0 };
    this.firstKept = undefined;
  }
}

function statementOf({ outbox }: Config): string {
  const table = qualified(outbox.schema, outbox.table);
  const seq = quoteIdentifier(outbox.columns.seq);
  const delivered = quoteIdentifier(outbox.columns.deliveredAt);
  const old = `${delivered} < clock_timestamp() - $2::float8 * interval '1 millisecond'`;
  // The range is named again beside the page: whatever join the planner chooses, it reads no more of the index.
  return `with page as materialized (
      select ${seq} as seq, ${delivered} is not null as delivered, coalesce(${old}, false) as old
        from ${table} where ${seq} > $1::bigint order by ${seq} limit ${PAGE_ROWS}),
    gone as (
      delete from ${table} o using page p
       where o.${seq} = p.seq and p.old and o.${old} and o.${seq} > $1::bigint
         and o.${seq} <= (select max(seq) from page)
      returning 1)
    select (select max(seq) from page) as last, (select min(seq) from page where not old) as kept,
           (select count(*) from page) as seen, (select count(*) from page where delivered and not old) as young,
           (select count(*) from gone) as gone`;
}
