/** A snapshot of PostgreSQL: which transactions it sees. Text form `xmin:xmax:xip,…`. */
export interface Snapshot {
  /** Below it every transaction has ended. */
  readonly xmin: number;
  /** From it on nothing is seen. */
  readonly xmax: number;
  /** Running ones between the two. */
  readonly running: readonly number[];
}

export function parseSnapshot(text: string): Snapshot {
  const match = /^(\d+):(\d+):([\d,]*)$/.exec(text);
  if (!match) throw new TypeError(`not a snapshot: ${text}`);
  const running = match[3] ? match[3].split(',').map(Number) : [];
  return { xmin: Number(match[1]), xmax: Number(match[2]), running };
}

/** Whether the snapshot sees what this transaction committed, given that it did commit. */
export function sees(snapshot: Snapshot, xid: number): boolean {
  return xid < snapshot.xmax && !snapshot.running.includes(xid);
}

/** Whether all that `earlier` sees can be seen now. */
export function seesAllOf(now: Snapshot, earlier: Snapshot): boolean {
  return now.xmax >= earlier.xmax && !now.running.some((xid) => sees(earlier, xid));
}

/**
 * The same snapshot in a form that PostgreSQL reads back. One exported with a slot can have its xmin above its xmax,
 * when the newest transactions before it rolled back: the server prints that, and refuses it as input (22P02). Below
 * xmin everything has ended, so that xmax can be raised to it without seeing more or less.
 */
export function readableSnapshot(text: string): string {
  const { xmin, xmax, running } = parseSnapshot(text);
  if (xmin <= xmax) return text;
  return `${xmin}:${xmin}:${running.filter((xid) => xid >= xmin).join(',')}`;
}
