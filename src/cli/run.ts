import { loadConfig } from '../config/load.ts';
import { UsageError } from '../errors/errors.ts';
import { loadOptions } from './command.ts';
import type { CommandContext } from './command.ts';

/** The daemon. */
// oxlint-disable-next-line require-await -- every command is asynchronous to its caller
export async function run(context: CommandContext): Promise<number> {
  loadConfig(context.env, loadOptions(context));
  throw new UsageError('the command "run" is not in this release');
}
