import { readFileSync } from 'node:fs';
import { RelayError } from '../errors/errors.ts';
import type { ConfigProblem } from '../errors/errors.ts';
import { messageOf } from '../errors/thrown.ts';
import type { Secret } from './config.ts';
import { OPTIONS } from './schema.ts';
import type { Option } from './schema.ts';
import type { SecretName, Settings } from './settings.ts';

/**
 * Where a secret option comes from: the value itself, or its file, read again at each call. Notes a problem when it is
 * given twice at the same level, or when its file can't be read now.
 */
export function secretOf(settings: Settings, name: SecretName): Secret | undefined {
  const fileVariable = `${name}_FILE`;
  const path = settings.raw(fileVariable);
  const plain = settings.raw(name);
  if (path === null) return plain === null ? undefined : plainSecret(plain);
  if (typeof path !== 'string') {
    settings.problems.push({ variable: fileVariable, message: 'expected the path of a file, as a text' });
    return undefined;
  }
  if (plain !== null && settings.layer(name) === settings.layer(fileVariable)) {
    settings.problems.push({
      variable: name,
      message: `is given twice: set either ${name} or ${fileVariable}`,
    });
    return undefined;
  }
  if (plain !== null && settings.layer(name) === 'environment') return plainSecret(plain);
  return fileSecret(settings, name, path);
}

function plainSecret(value: unknown): Secret {
  const text = Array.isArray(value) ? value.join(',') : String(value);
  return () => text;
}

function fileSecret(settings: Settings, name: SecretName, path: string): Secret | undefined {
  const option: Option = OPTIONS[name];
  const read = (): string => readSecretFile(`${name}_FILE`, path);
  const problem = problemOf(`${name}_FILE`, () => option.format(read()));
  if (problem === undefined) return read;
  settings.problems.push(problem);
  return undefined;
}

/** Runs a check and turns what it throws into a problem of `variable`. */
export function problemOf(variable: string, check: () => unknown): ConfigProblem | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    return { variable, message: messageOf(error) };
  }
}

/** Content of a file without the line end that editors and `echo` add. Throws RelayError('stop'). */
export function readSecretFile(variable: string, path: string): string {
  let content: string;
  try {
    content = readFileSync(path, 'utf8').replace(/\r?\n$/u, '');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw unusable(variable, `can't read the file ${path} (${code})`, error);
  }
  if (content === '') throw unusable(variable, `the file ${path} is empty`);
  return content;
}

function unusable(variable: string, message: string, cause?: unknown): RelayError {
  const advice = `Check ${variable} and that the relay's user may read the file.`;
  return new RelayError('stop', 'secret-unreadable', message, { advice, cause });
}
