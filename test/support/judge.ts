/** A row that was committed. `order` grows in commit order, and inside a transaction in insert order. */
export interface CommittedRow {
  readonly order: number;
  readonly id: string;
  readonly key: string | null;
  readonly payload: string | null;
}

/** A message as a consumer saw it, in the order of its partition or queue. */
export interface ReceivedMessage {
  readonly id: string;
  readonly key: string | null;
  readonly payload: string | null;
}

export interface Verdict {
  readonly committed: number;
  readonly received: number;
  /** Ids that were committed and never received. */
  readonly lost: readonly string[];
  /** Ids that were received and never committed. */
  readonly invented: readonly string[];
  /** Ids that were received at least once with another key or payload. */
  readonly altered: readonly string[];
  /** First deliveries that came after that of a later committed event of their key. */
  readonly outOfOrder: readonly { readonly key: string; readonly id: string; readonly after: string }[];
  /** Deliveries beyond the first of each committed event. */
  readonly duplicates: number;
}

/** Compares what the database committed with what arrived. Ids have to be unique; a `null` key asks for no order. */
export function judge(committed: Iterable<CommittedRow>, received: Iterable<ReceivedMessage>): Verdict {
  const rows = new Map<string, CommittedRow>();
  for (const row of committed) rows.set(row.id, row);
  const seen = new Set<string>();
  const latestOfKey = new Map<string, CommittedRow>();
  const invented: string[] = [];
  const altered = new Set<string>();
  const outOfOrder: { key: string; id: string; after: string }[] = [];
  let count = 0;
  let duplicates = 0;
  for (const message of received) {
    count++;
    const row = rows.get(message.id);
    if (row === undefined) {
      invented.push(message.id);
      continue;
    }
    if (message.key !== row.key || message.payload !== row.payload) altered.add(row.id);
    if (seen.has(row.id)) {
      duplicates++;
      continue;
    }
    seen.add(row.id);
    if (row.key === null) continue;
    const latest = latestOfKey.get(row.key);
    if (latest === undefined || latest.order < row.order) latestOfKey.set(row.key, row);
    else outOfOrder.push({ key: row.key, id: row.id, after: latest.id });
  }
  const lost = [...rows.keys()].filter((id) => !seen.has(id));
  return {
    committed: rows.size,
    received: count,
    lost,
    invented,
    altered: [...altered],
    outOfOrder,
    duplicates,
  };
}

/** Throws unless nothing was lost, invented, altered or out of order, with at most `maxDuplicates` duplicates. */
export function assertDelivered(verdict: Verdict, limits: { maxDuplicates: number }): void {
  const { lost, invented, altered, outOfOrder, duplicates } = verdict;
  const problems = [
    ...few('lost', lost),
    ...few('invented', invented),
    ...few('altered', altered),
    ...few('out of order', outOfOrder),
    ...(duplicates > limits.maxDuplicates
      ? [`${duplicates} duplicates, allowed ${limits.maxDuplicates}`]
      : []),
  ];
  if (problems.length === 0) return;
  throw new Error(`${verdict.committed} committed, ${verdict.received} received: ${problems.join('; ')}`);
}

function few(name: string, list: readonly unknown[]): string[] {
  return list.length === 0 ? [] : [`${list.length} ${name}, first: ${JSON.stringify(list.slice(0, 5))}`];
}
