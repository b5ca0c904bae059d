/**
 * What became of a round, from two records that the relay has no hand in: the journal that writers keep in the
 * transactions of their events, and the broker's log. Shares no code with the relay. Times are milliseconds of one clock.
 */

/** A journal's row: its transaction committed, and the database has it still. */
export interface Truth {
  /** Grows in commit order of each key, and inside a transaction in insert order. */
  readonly number: number;
  readonly id: string;
  readonly destination: string;
  readonly key: string;
  /** Of everything that has to arrive unchanged. */
  readonly digest: string;
  /** Too large to be delivered: it has to be parked. */
  readonly poison: boolean;
  readonly writtenMs: number;
}

/** A message in the broker's log, in the order of its log. */
export interface Delivered {
  readonly id: string;
  readonly destination: string;
  readonly key: string;
  readonly digest: string;
  /** Partition or queue: where there is one order. */
  readonly log: string;
  /** By the broker's clock; undefined where the broker notes none. */
  readonly atMs: number | undefined;
}

export interface Parked {
  readonly id: string;
  readonly digest: string;
  readonly code: string;
}

/** What was seen from outside at one moment. */
export interface Sample {
  readonly atMs: number;
  /** When the last relay had answered. */
  readonly endedMs: number;
  /** The undelivered row that comes first, and the one that comes last. */
  readonly oldestId: string | undefined;
  readonly newestId: string | undefined;
  /** What the slot keeps of the log, bytes; 0 without a slot. */
  readonly retainedBytes: number;
  readonly relays: readonly RelaySample[];
}

export interface RelaySample {
  readonly startedMs: number;
  /** It runs and nothing is being done to it or to its connections. */
  readonly undisturbed: boolean;
  /** Undefined: it did not answer. */
  readonly lagSeconds: number | undefined;
  readonly rssBytes: number;
}

export interface Record {
  readonly truth: readonly Truth[];
  readonly delivered: readonly Delivered[];
  readonly parked: readonly Parked[];
  /** Ids of rows that nobody delivered when the round had to end. */
  readonly waiting: readonly string[];
  readonly samples: readonly Sample[];
  /** When the last fault had ended. */
  readonly healedMs: number;
  /** When nothing waited any more; undefined: nobody saw that. */
  readonly drainedMs?: number | undefined;
}

export interface Limits {
  readonly maxDuplicates: number;
  readonly maxRssBytes: number;
  readonly maxRetainedBytes: number;
}

export interface Findings {
  readonly committed: number;
  readonly delivered: number;
  readonly lost: readonly string[];
  readonly invented: readonly string[];
  readonly altered: readonly string[];
  readonly outOfOrder: readonly string[];
  readonly wronglyParked: readonly string[];
  readonly undrained: readonly string[];
  readonly lagUntrue: readonly string[];
  readonly memory: readonly string[];
  readonly retained: readonly string[];
  readonly duplicates: number;
  readonly tooManyDuplicates: boolean;
  /** From the last fault's end until everything that was written before it was delivered; undefined: nobody saw that. */
  readonly recoveredMs: number | undefined;
  readonly mostRssBytes: number;
}

/**
 * The table is probed once a second, and three seconds without an answer still count as none (P9: at least the time
 * since the last answer); the scrape itself takes its time on a busy machine.
 */
const LAG_TOLERANCE_MS = 4_500;
/** A slot is looked at from time to time, and dropping it takes a moment. */
const GUARD_TOLERANCE_MS = 5_000;

export function check(record: Record, limits: Limits): Findings {
  const truth = new Map(record.truth.map((row) => [row.id, row]));
  const first = firstDeliveries(record.delivered);
  const parked = new Map(record.parked.map((row) => [row.id, row]));
  const duplicates = record.delivered.filter(({ id }) => truth.has(id)).length - countKnown(first, truth);
  return {
    committed: truth.size,
    delivered: record.delivered.length,
    lost: record.truth.filter(({ id }) => !first.has(id) && !parked.has(id)).map(({ id }) => id),
    invented: [...first.keys(), ...parked.keys()].filter((id) => !truth.has(id)),
    altered: findAltered(record, truth),
    outOfOrder: findOutOfOrder(record.delivered, truth),
    wronglyParked: findWronglyParked(truth, first, parked),
    undrained: record.waiting,
    lagUntrue: findUntrueLag(record.samples, (id) => truth.has(id) && !parked.has(id), first),
    memory: findMemory(record.samples, limits.maxRssBytes),
    retained: findRetained(record.samples, limits.maxRetainedBytes),
    duplicates,
    tooManyDuplicates: duplicates > limits.maxDuplicates,
    recoveredMs: recoveryMs(record, truth),
    mostRssBytes: Math.max(
      0,
      ...record.samples.flatMap(({ relays }) => relays.map(({ rssBytes }) => rssBytes)),
    ),
  };
}

/** In words, with examples; empty: every promise was kept. */
export function complaints(findings: Findings): string[] {
  const lists = [
    'lost',
    'invented',
    'altered',
    'outOfOrder',
    'wronglyParked',
    'undrained',
    'lagUntrue',
    'memory',
    'retained',
  ] as const;
  const found = lists
    .filter((name) => findings[name].length > 0)
    .map((name) => `${findings[name].length} ${name}: ${findings[name].slice(0, 3).join('; ')}`);
  return findings.tooManyDuplicates ? [...found, `${findings.duplicates} duplicates`] : found;
}

function firstDeliveries(delivered: readonly Delivered[]): Map<string, Delivered> {
  const first = new Map<string, Delivered>();
  for (const message of delivered) if (!first.has(message.id)) first.set(message.id, message);
  return first;
}

function countKnown(first: ReadonlyMap<string, Delivered>, truth: ReadonlyMap<string, Truth>): number {
  return [...first.keys()].filter((id) => truth.has(id)).length;
}

function findAltered(record: Record, truth: ReadonlyMap<string, Truth>): string[] {
  const wrong = record.delivered.filter((message) => {
    const row = truth.get(message.id);
    return (
      row !== undefined &&
      (row.digest !== message.digest || row.key !== message.key || row.destination !== message.destination)
    );
  });
  const wrongRows = record.parked.filter(({ id, digest }) => (truth.get(id)?.digest ?? digest) !== digest);
  return [...new Set([...wrong, ...wrongRows].map(({ id }) => id))];
}

/** A key whose first deliveries lie in two logs has no order at all. */
function findOutOfOrder(delivered: readonly Delivered[], truth: ReadonlyMap<string, Truth>): string[] {
  const seen = new Set<string>();
  const latest = new Map<string, { row: Truth; log: string }>();
  const found: string[] = [];
  for (const { id, log } of delivered) {
    const row = truth.get(id);
    if (row === undefined || seen.has(id)) continue;
    seen.add(id);
    const name = JSON.stringify([row.destination, row.key]);
    const before = latest.get(name);
    if (before !== undefined && before.log !== log)
      found.push(`${name} in ${before.log} and in ${log}: ${id}`);
    else if (before !== undefined && before.row.number > row.number)
      found.push(`${name}: ${id} (${row.number}) after ${before.row.id} (${before.row.number})`);
    else latest.set(name, { row, log });
  }
  return found;
}

function findWronglyParked(
  truth: ReadonlyMap<string, Truth>,
  first: ReadonlyMap<string, Delivered>,
  parked: ReadonlyMap<string, Parked>,
): string[] {
  const fine = [...parked.values()].filter(({ id }) => truth.get(id)?.poison === false);
  const poison = [...truth.values()].filter((row) => row.poison && first.has(row.id));
  return [
    ...fine.map(({ id, code }) => `${id} (${code})`),
    ...poison.map(({ id }) => `${id} was to be parked and was delivered`),
  ];
}

/**
 * A row that was seen undelivered, and is so still, is at least as old as since then; nobody who has run for longer than
 * the tolerance may call the lag smaller by more than it. Not only the oldest row: that one may be with the broker,
 * which could not say so.
 */
function findUntrueLag(
  samples: readonly Sample[],
  isToBeDelivered: (id: string) => boolean,
  first: ReadonlyMap<string, Delivered>,
): string[] {
  const found: string[] = [];
  const waiting = new Map<string, number>();
  for (const { atMs, endedMs, oldestId, newestId, relays } of samples) {
    for (const id of [oldestId, newestId])
      if (id !== undefined && isToBeDelivered(id) && !waiting.has(id)) waiting.set(id, atMs);
    // The relays were asked after the table: what arrives in between is no part of the lag that they show.
    for (const id of waiting.keys()) if (wasDelivered(first.get(id), endedMs)) waiting.delete(id);
    const [oldest] = waiting;
    if (oldest === undefined) continue;
    const [id, sinceMs] = oldest;
    for (const [index, { startedMs, lagSeconds }] of relays.entries()) {
      if (lagSeconds === undefined) continue;
      const ageMs = atMs - Math.max(sinceMs, startedMs);
      if (ageMs - lagSeconds * 1000 > LAG_TOLERANCE_MS)
        found.push(`relay ${index}: ${lagSeconds} s while ${id} waited for ${ageMs} ms`);
      if (lagSeconds < 0) found.push(`relay ${index}: ${lagSeconds} s`);
    }
  }
  return found;
}

/** Delivered is settled, although its row may still be there; without a time it may have been at any. */
function wasDelivered(message: Delivered | undefined, atMs: number): boolean {
  return message !== undefined && (message.atMs ?? 0) < atMs;
}

function findMemory(samples: readonly Sample[], maxBytes: number): string[] {
  return samples
    .flatMap(({ relays }) => relays.map(({ rssBytes }) => rssBytes))
    .filter((bytes) => bytes > maxBytes)
    .map((bytes) => `${Math.round(bytes / 1024 ** 2)} MiB`);
}

/** A guard needs a relay that can reach the database: only what is over the limit in spite of one counts. */
function findRetained(samples: readonly Sample[], maxBytes: number): string[] {
  const found: string[] = [];
  let overSinceMs: number | undefined;
  for (const { atMs, retainedBytes, relays } of samples) {
    const guarded = relays.some(
      ({ undisturbed, startedMs }) => undisturbed && atMs - startedMs > GUARD_TOLERANCE_MS,
    );
    if (retainedBytes <= maxBytes || !guarded) overSinceMs = undefined;
    else overSinceMs ??= atMs;
    if (overSinceMs !== undefined && atMs - overSinceMs > GUARD_TOLERANCE_MS)
      found.push(`${Math.round(retainedBytes / 1024 ** 2)} MiB`);
  }
  return found;
}

/** Seen from outside, so to a quarter of a second. */
function recoveryMs(
  { samples, healedMs, drainedMs }: Record,
  truth: ReadonlyMap<string, Truth>,
): number | undefined {
  const recovered = samples.find(({ atMs, oldestId }) => {
    if (atMs < healedMs) return false;
    const oldest = oldestId === undefined ? undefined : truth.get(oldestId);
    return oldest === undefined || oldest.writtenMs > healedMs;
  });
  const atMs = recovered?.atMs ?? drainedMs;
  return atMs === undefined ? undefined : Math.max(0, atMs - healedMs);
}
