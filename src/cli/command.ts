import type { Writable } from 'node:stream';
import type { LoadOptions } from '../config/load.ts';

export type Output = Writable & { readonly isTTY?: boolean };

/** What the command line said, checked against the command's own options (`cli/args.ts`). */
export interface CommandArgs {
  readonly command: CommandName;
  /** Option name without dashes → its value; `true` for a switch. */
  readonly values: Readonly<Record<string, string | boolean | undefined>>;
}

export type CommandName = 'run' | 'migrate' | 'config' | 'demo';

export interface CommandContext {
  readonly args: CommandArgs;
  readonly env: NodeJS.ProcessEnv;
  /** Aborted with reason 'drain' by the first SIGTERM or SIGINT: finish what is in flight, then return. */
  readonly signal: AbortSignal;
  readonly stdout: Output;
  /** Logs, warnings and errors; stdout belongs to the command's result. */
  readonly stderr: Output;
}

/** Resolves with the exit code; throws ConfigError, UsageError or RelayError for `main.ts` to explain. */
export type Command = (context: CommandContext) => Promise<number>;

/** How every command reads its configuration: the `--config` file, warnings on stderr. */
export function loadOptions(context: Pick<CommandContext, 'args' | 'stderr'>): LoadOptions {
  const file = context.args.values['config'];
  return {
    file: typeof file === 'string' ? file : undefined,
    terminal: context.stderr.isTTY === true,
    warn: (text) => void context.stderr.write(`warning: ${text}\n`),
  };
}
