import { loadChecked } from '../config/load.ts';
import { effectiveSettings } from '../config/effective.ts';
import { loadOptions } from './command.ts';
import type { CommandContext } from './command.ts';

/** Prints the settings in effect and where each comes from; a wrong configuration throws like `run` would. */
// oxlint-disable-next-line require-await -- every command is asynchronous to its caller
export async function run(context: CommandContext): Promise<number> {
  const { settings } = loadChecked(context.env, loadOptions(context));
  const rows = effectiveSettings(settings);
  if (context.args.values['json'] === true) {
    const entries = rows.map(({ name, value, source }) => [name, { value, source }] as const);
    context.stdout.write(`${JSON.stringify(Object.fromEntries(entries), undefined, 2)}\n`);
    return 0;
  }
  const nameWidth = Math.max(...rows.map(({ name }) => name.length));
  const sourceWidth = Math.max(...rows.map(({ source }) => source.length));
  for (const { name, value, source } of rows) {
    context.stdout.write(
      `${name.padEnd(nameWidth)}  ${source.padEnd(sourceWidth)}  ${value ?? ''}`.trimEnd().concat('\n'),
    );
  }
  return 0;
}
