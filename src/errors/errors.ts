/** What an error means for the relay: try again for ever, put this one event aside, or wait for a person. */
export type Consequence = 'retry' | 'park' | 'stop';

/** An error whose consequence is known. `code` is stable and appears in metrics; `advice` is one sentence for the operator. */
export class RelayError extends Error {
  readonly code: string;
  readonly consequence: Consequence;
  readonly advice: string;

  constructor(
    consequence: Consequence,
    code: string,
    message: string,
    options: { advice: string; cause?: unknown },
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'RelayError';
    this.consequence = consequence;
    this.code = code;
    this.advice = options.advice;
  }
}

export interface ConfigProblem {
  /** Name of the environment variable. */
  readonly variable: string;
  /** What is wrong, and what is expected. */
  readonly message: string;
}

/** Every problem of the configuration at once. Exit code 78 (EX_CONFIG of sysexits.h). */
export class ConfigError extends Error {
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    super(problems.map((p) => `${p.variable}: ${p.message}`).join('\n'));
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** The command line can't be understood. Exit code 2. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'UsageError';
  }
}
