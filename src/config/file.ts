import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';
import type { ConfigProblem } from '../errors/errors.ts';
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
    const message = error instanceof Error ? error.message : String(error);
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
  const value: unknown = JSON.parse(content);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw new Error('expected one JSON object');
}
