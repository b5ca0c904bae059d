import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import type { ConfigProblem } from '../errors/errors.ts';
import { messageOf } from '../errors/thrown.ts';
import { nearest } from './nearest.ts';
import { VARIABLES } from './settings.ts';

export interface ConfigFile {
  readonly values: Readonly<Record<string, unknown>>;
  readonly problems: readonly ConfigProblem[];
}

/**
 * Reads a configuration file: `.json` is one object, anything else lines of NAME=value with # comments. Its keys are
 * the variables' names. An unknown key is a problem, not a warning: nobody else writes into this file.
 *
 * @param variable what named the file, for the messages.
 */
export function readConfigFile(path: string, variable: string): ConfigFile {
  let values: Readonly<Record<string, unknown>>;
  try {
    values = parse(path, readFileSync(path, 'utf8'));
  } catch (error) {
    const message = reasonOf(error);
    return { values: {}, problems: [{ variable, message: `can't read the file ${path} (${message})` }] };
  }
  const unknown = Object.keys(values).filter((name) => !VARIABLES.includes(name));
  const problems = unknown.map((name) => ({
    variable: name,
    message: `no such setting in ${path}; the nearest is ${nearest(name, VARIABLES)}`,
  }));
  return { values, problems };
}

function parse(path: string, content: string): Readonly<Record<string, unknown>> {
  if (!path.endsWith('.json')) return parseEnv(content);
  const value = parseJson(content);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw new Error('expected one JSON object');
}

/** The code of a file system error; its message would repeat the path. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message;
}

/** As JSON.parse, whose own message quotes the text around the mistake: in this file that may be a password. */
function parseJson(content: string): unknown {
  const error = syntaxErrorOf(content);
  if (error === undefined) return JSON.parse(content);
  const before = content.slice(0, mistakeIn(content, error)).split('\n');
  throw new Error(`not valid JSON at line ${before.length} column ${(before.at(-1) ?? '').length + 1}`);
}

function syntaxErrorOf(content: string): string | undefined {
  try {
    JSON.parse(content);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

const QUOTING = /is not valid JSON$/u;

/** A message that quotes tells no position: it is the end of the shortest beginning of the text with such a message. */
function mistakeIn(content: string, message: string): number {
  const told = QUOTING.test(message) ? undefined : / at position (\d+)/u.exec(message)?.[1];
  if (told !== undefined) return Number(told);
  if (!QUOTING.test(message)) return content.length;
  let [good, bad] = [0, content.length];
  while (bad - good > 1) {
    const middle = Math.floor((good + bad) / 2);
    if (QUOTING.test(syntaxErrorOf(content.slice(0, middle)) ?? '')) bad = middle;
    else good = middle;
  }
  return bad - 1;
}
