import { ConfigError, RelayError, UsageError } from '../errors/errors.ts';

export const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
/** EX_CONFIG of sysexits.h. */
const EXIT_CONFIG = 78;

export interface Failure {
  readonly exitCode: number;
  /** For a person, without trailing newline. */
  readonly text: string;
}

/**
 * How an error that ended a command is told. A `stop` reaches this point only before anything worked (later the relay
 * halts instead), and then a setting is wrong: credentials, table, privileges; an orchestrator must see that a restart
 * alone won't help.
 *
 * @param debug add the stack of an error that nobody classified.
 */
export function explainFailure(error: unknown, debug: boolean): Failure {
  if (error instanceof ConfigError) {
    const lines = error.problems.map((problem) => `  ${problem.variable}: ${problem.message}`);
    const count = lines.length === 1 ? '1 problem' : `${lines.length} problems`;
    return { exitCode: EXIT_CONFIG, text: [`The configuration has ${count}:`, ...lines].join('\n') };
  }
  if (error instanceof UsageError) return { exitCode: EXIT_USAGE, text: `outbox-relay: ${error.message}` };
  if (error instanceof RelayError) {
    const exitCode = error.consequence === 'stop' ? EXIT_CONFIG : EXIT_FAILED;
    return { exitCode, text: oneLine(`outbox-relay: ${error.message} [${error.code}] ${error.advice}`) };
  }
  return { exitCode: EXIT_FAILED, text: unclassified(error, debug) };
}

function unclassified(error: unknown, debug: boolean): string {
  if (!(error instanceof Error)) return oneLine(`outbox-relay: ${String(error)}`);
  if (debug) return error.stack ?? error.message;
  // AggregateError (a refused connection to "localhost") has an empty message; its code says what happened.
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  return oneLine(`outbox-relay: ${error.message || code || error.name} (LOG_LEVEL=debug shows where)`);
}

function oneLine(text: string): string {
  return text.replaceAll(/\s*\n\s*/gu, ' ');
}
