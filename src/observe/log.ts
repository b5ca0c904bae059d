import type { LogLevel } from '../config/config.ts';
import { RelayError } from '../errors/errors.ts';

/** Values that a line may carry; an Error becomes its code, message and chain of causes. */
export type Fields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
}

export interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: 'json' | 'pretty';
  /** Takes one line with its newline. Must not throw. */
  readonly write: (line: string) => void;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

const RANK: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };
const MAX_CAUSES = 5;
const MAX_TEXT = 4000;

export function createLogger(options: LoggerOptions): Logger {
  const line = options.format === 'json' ? jsonLine : prettyLine;
  const at =
    (level: LogLevel) =>
    (message: string, fields: Fields = {}): void => {
      if (RANK[level] < RANK[options.level]) return;
      options.write(`${line(new Date(options.now()).toISOString(), level, message, fields)}\n`);
    };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

/** What a log line says about an error. Not its stack, and not PostgreSQL's `detail`, which can hold a row's values. */
function describeError(error: unknown, depth = 0): Fields | string {
  if (!(error instanceof Error)) return shorten(String(error));
  const code =
    'code' in error && (typeof error.code === 'string' || typeof error.code === 'number')
      ? { code: error.code }
      : {};
  const advice = error instanceof RelayError ? { advice: error.advice } : {};
  // "localhost" refused on both of its addresses: the message of the whole is empty.
  const cause: unknown = error.cause ?? (error instanceof AggregateError ? error.errors[0] : undefined);
  return {
    ...code,
    message: shorten(error.message || error.name),
    ...advice,
    ...(cause === undefined || depth >= MAX_CAUSES ? {} : { cause: describeError(cause, depth + 1) }),
  };
}

function jsonLine(time: string, level: LogLevel, message: string, fields: Fields): string {
  const fixed = { time, level, message: shorten(message) };
  try {
    // The line's own parts last: a field of the same name must not replace them.
    return JSON.stringify({ ...fixed, ...fields, ...fixed }, replacer);
  } catch {
    // A cycle in a field: the message matters more.
    return JSON.stringify({ ...fixed, fields: 'not printable' });
  }
}

function replacer(_key: string, value: unknown): unknown {
  if (value instanceof Error) return describeError(value);
  if (typeof value === 'bigint') return value.toString();
  return typeof value === 'string' ? shorten(value) : value;
}

function prettyLine(time: string, level: LogLevel, message: string, fields: Fields): string {
  const parts = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}=${prettyValue(value)}`);
  return `${time.slice(11, 23)} ${level.toUpperCase().padEnd(5)} ${oneLine(message)}${parts.join('')}`;
}

function prettyValue(value: unknown): string {
  if (value instanceof Error) return prettyError(describeError(value));
  if (typeof value === 'string')
    return /^[\w./:@-]+$/.test(value) ? shorten(value) : JSON.stringify(shorten(value));
  if (typeof value === 'bigint') return value.toString();
  try {
    return JSON.stringify(value, replacer) ?? 'undefined';
  } catch {
    return 'not printable';
  }
}

function prettyError(error: unknown): string {
  const parts: string[] = [];
  for (let at = error, depth = 0; typeof at === 'object' && at !== null && depth <= MAX_CAUSES; depth++) {
    const { code, message, advice, cause } = at as Record<string, unknown>;
    const marks = [code, message, advice].filter((part) => part !== undefined).map(String);
    parts.push(marks.join(' · '));
    at = cause;
  }
  return JSON.stringify(parts.length === 0 ? String(error) : parts.join(' <- '));
}

/** One line stays one line, whatever a server put into its message. */
function oneLine(text: string): string {
  return shorten(text).replaceAll(/\s*\n\s*/gu, ' ');
}

function shorten(text: string): string {
  return text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}… (${text.length} characters)`;
}

/**
 * Logs a condition once per change: a broker that is away for an hour is one line when it goes, one when it comes, and
 * a reminder in between. `topic` must come from a small, fixed set.
 */
export class ChangeLog {
  private readonly seen = new Map<string, { state: string; loggedAtMs: number; repeated: number }>();
  private readonly logger: Logger;
  private readonly now: () => number;
  private readonly remindMs: number;

  /** @param options.remindMs how long an unchanged state stays silent; default 5 minutes. */
  constructor(logger: Logger, options: { readonly now: () => number; readonly remindMs?: number }) {
    this.logger = logger;
    this.now = options.now;
    this.remindMs = options.remindMs ?? 300_000;
  }

  /** The state that was reported last. */
  last(topic: string): string | undefined {
    return this.seen.get(topic)?.state;
  }

  /** Returns whether a line was written. */
  report(
    topic: string,
    state: string,
    entry: { level: LogLevel; message: string; fields?: Fields },
  ): boolean {
    const nowMs = this.now();
    const last = this.seen.get(topic);
    if (last?.state === state && nowMs - last.loggedAtMs < this.remindMs) {
      last.repeated++;
      return false;
    }
    const repeated = last?.state === state ? { repeated: last.repeated + 1 } : {};
    this.seen.set(topic, { state, loggedAtMs: nowMs, repeated: 0 });
    this.logger[entry.level](entry.message, { ...entry.fields, ...repeated });
    return true;
  }
}
