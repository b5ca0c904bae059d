import { parseTemplate, TemplateSyntaxError } from '../pipeline/envelope/template.ts';

/**
 * Turns what was configured (text from the environment, any JSON value from a file) into a value.
 * Throws an Error whose message completes "NAME: …"; the caller adds the value unless it is secret.
 */
export type Format<T> = (raw: unknown) => T;

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
};

/** A size in bytes: `900000`, `64MiB`, `4GiB`. */
export function bytes(min: number, max: number = Number.MAX_SAFE_INTEGER): Format<number> {
  return (raw) => {
    const match = /^(\d+) ?([KMGT]iB|)$/u.exec(String(raw).trim());
    const value = Number(match?.[1] ?? Number.NaN) * (UNITS[match?.[2] ?? ''] ?? Number.NaN);
    if (value >= min && value <= max) return value;
    throw new Error(`expected a size in bytes${range(min, max)}, such as 900000, 64MiB or 4GiB`);
  };
}

export function integer(min: number, max: number = Number.MAX_SAFE_INTEGER): Format<number> {
  return wholeNumber('a whole number', min, max);
}

export function milliseconds(min: number, max: number = 2 ** 31 - 1): Format<number> {
  return wholeNumber('milliseconds as a whole number', min, max);
}

function wholeNumber(what: string, min: number, max: number): Format<number> {
  return (raw) => {
    const digits = String(raw).trim();
    const value = /^\d+$/u.test(digits) ? Number(digits) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new Error(`expected ${what}${range(min, max)}`);
  };
}

function range(min: number, max: number): string {
  if (max < 2 ** 31 - 1) return ` from ${min} to ${max}`;
  return min > 0 ? ` of at least ${min}` : '';
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** A long time, `90s`, `15m`, `12h` or `7d`, in milliseconds. */
export function duration(minMs: number): Format<number> {
  return (raw) => {
    const match = /^(\d{1,9}) ?([smhd])$/u.exec(String(raw).trim());
    const value = Number(match?.[1] ?? Number.NaN) * (SECONDS[match?.[2] ?? ''] ?? Number.NaN) * 1000;
    if (value >= minMs) return value;
    throw new Error(
      `expected a time of at least ${minMs / 1000}s with its unit, such as 90s, 15m, 12h or 7d`,
    );
  };
}

export function boolean(raw: unknown): boolean {
  const word = String(raw).trim().toLowerCase();
  if (word === 'true' || word === '1') return true;
  if (word === 'false' || word === '0') return false;
  throw new Error('expected true or false');
}

/** One of the given words, in any case. `refused`: words that are understood but not possible, each with the reason. */
export function oneOf<const W extends string>(
  words: readonly W[],
  refused: Readonly<Record<string, string>> = {},
): Format<W> {
  return (raw) => {
    const given = String(raw).trim().toLowerCase();
    const word = words.find((candidate) => candidate === given);
    if (word !== undefined) return word;
    throw new Error(refused[given] ?? `expected ${alternatives(words)}`);
  };
}

function alternatives(words: readonly string[]): string {
  if (words.length < 2) return words.join('');
  return `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

export function text(raw: unknown): string {
  if (typeof raw === 'string') return raw;
  if (typeof raw === 'number') return String(raw);
  throw new Error('expected a text');
}

/** A certificate or key in its text form. */
export function pem(raw: unknown): string {
  const value = text(raw);
  if (value.includes('-----BEGIN ')) return value;
  throw new Error('expected a PEM text (-----BEGIN …); for a path use the _FILE variable');
}

/** `host:port`, comma-separated (or a JSON list): the client library needs the port. */
export function hostsWithPorts(raw: unknown): readonly string[] {
  const entries = textList(raw);
  const wrong = entries.find((entry) => !isHostWithPort(entry));
  if (wrong !== undefined || entries.length === 0) {
    throw new Error(`expected host:port, comma-separated${wrong === undefined ? '' : `; "${wrong}" is not`}`);
  }
  return entries;
}

function isHostWithPort(entry: string): boolean {
  const match = /^(?:\[[0-9a-fA-F:.]+\]|[^\s:/,[\]]+):(\d{1,5})$/u.exec(entry);
  const port = Number(match?.[1] ?? 0);
  return port >= 1 && port <= 65_535;
}

/** Comma-separated text, or a JSON list of texts; blanks around entries and empty entries removed. */
export function textList(raw: unknown): readonly string[] {
  const entries: readonly unknown[] = Array.isArray(raw) ? raw : String(raw).split(',');
  return entries.map((entry) => String(entry).trim()).filter((entry) => entry !== '');
}

const MAX_IDENTIFIER_BYTES = 63;

/** One SQL identifier; unquoted it is folded to lower case, as PostgreSQL does. */
export function identifier(raw: unknown): string {
  const parts = identifiers(text(raw));
  if (parts?.length === 1 && parts[0] !== undefined) return parts[0];
  throw new Error(
    'expected one SQL identifier of at most 63 bytes; write "Name" in double quotes to keep capital letters',
  );
}

export interface QualifiedName {
  readonly schema: string;
  readonly table: string;
}

/** `table` or `schema.table`; each part may be quoted. */
export function qualifiedName(raw: unknown): QualifiedName {
  const parts = identifiers(text(raw));
  const [first, second] = parts ?? [];
  if (parts?.length === 1 && first !== undefined) return { schema: 'public', table: first };
  if (parts?.length === 2 && first !== undefined && second !== undefined)
    return { schema: first, table: second };
  throw new Error(
    'expected table or schema.table, as in SQL; a part with other characters goes in double quotes',
  );
}

/** The parts of a dotted name, or undefined when it isn't one. */
function identifiers(name: string): readonly string[] | undefined {
  const part = /("(?:[^"\0]|"")+"|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)(\.|$)/uy;
  const parts: string[] = [];
  const source = name.trim();
  let separator = '.';
  while (part.lastIndex < source.length) {
    const match = part.exec(source);
    if (match?.[1] === undefined) return undefined;
    parts.push(unquoted(match[1]));
    separator = match[2] ?? '';
  }
  const tooLong = parts.some((entry) => Buffer.byteLength(entry) > MAX_IDENTIFIER_BYTES);
  return separator === '.' || tooLong ? undefined : parts;
}

function unquoted(part: string): string {
  if (part.startsWith('"')) return part.slice(1, -1).replaceAll('""', '"');
  // PostgreSQL folds ASCII only in a multi-byte encoding.
  return part.replaceAll(/[A-Z]/gu, (letter) => letter.toLowerCase());
}

/** PostgreSQL's rule for slot names. */
export function slotName(raw: unknown): string {
  const value = text(raw);
  if (/^[a-z0-9_]{1,63}$/u.test(value)) return value;
  throw new Error('expected 1 to 63 lower-case letters, digits and underscores');
}

/** A template over the row's columns; the value stays text, `envelope/` parses it again. */
export function template(raw: unknown): string {
  const value = text(raw);
  try {
    parseTemplate(value);
  } catch (error) {
    if (!(error instanceof TemplateSyntaxError)) throw error;
    throw new Error(`the template ${error.message}; write \${column}, and $\${ for a literal \${`, {
      cause: error,
    });
  }
  return value;
}
