import { existsSync } from 'node:fs';
import { demoOptions } from '../demo/options.ts';
import { RelayError } from '../errors/errors.ts';
import type { CommandContext } from './command.ts';

/** Part of the repository and of no image or package: what the demo starts are development dependencies. */
const REPOSITORY_MARK = new URL('../../scripts/with-dependencies.mjs', import.meta.url);

/** The demo. Exit code 1 when what was delivered is not what was committed. */
export async function run(context: CommandContext): Promise<number> {
  const options = demoOptions(context.args.values);
  if (!existsSync(REPOSITORY_MARK)) {
    throw new RelayError('retry', 'demo-needs-repository', 'the demo is not part of this installation', {
      advice:
        'It brings its own servers as development dependencies: clone the repository and run "npm run demo".',
    });
  }
  hideTimerWarning(context.stderr);
  const { runDemo } = await import('../demo/demo.ts');
  return await runDemo(options, context);
}

/** kafkajs asks for timers in the past, which Node tells once a process: in the middle of the screen. */
function hideTimerWarning(stderr: CommandContext['stderr']): void {
  process.removeAllListeners('warning');
  process.on('warning', ({ name, message }) => {
    if (name !== 'TimeoutNegativeWarning') stderr.write(`${name}: ${message}\n`);
  });
}
