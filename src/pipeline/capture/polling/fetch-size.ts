export interface PageRow {
  readonly seq: number;
  /** Bytes of the row's text form, without those of fixed length. */
  readonly bytes: number;
}

/** In one fetch; an event larger than that is fetched alone. */
const FETCH_BYTES = 4 * 1_048_576;

/** An oversized row goes alone: what is left out of its fetch must not be left out of its neighbours'. */
export function endOfFetch(page: readonly PageRow[], from: number, maxEventBytes: number): number {
  let bytes = page[from]?.bytes ?? 0;
  let to = from + 1;
  if (bytes > maxEventBytes) return to;
  while (to < page.length) {
    const next = page[to]?.bytes ?? 0;
    if (next > maxEventBytes || bytes + next > FETCH_BYTES) break;
    bytes += next;
    to++;
  }
  return to;
}
