import { UsageError } from '../errors/errors.ts';
import type { CommandContext } from './command.ts';

export async function run(_context: CommandContext): Promise<number> {
  throw new UsageError('the command "migrate" is not in this release');
}
