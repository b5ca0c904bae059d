import type { Command, CommandName } from './cli/command.ts';
import { parseCommandLine } from './cli/args.ts';
import { explainFailure } from './cli/failure.ts';
import { version } from './version.ts';

/** Loaded on demand: a command must not pay for the others' dependencies at start. */
const LOADERS: Record<CommandName, () => Promise<{ run: Command }>> = {
  run: () => import('./cli/run.ts'),
  migrate: () => import('./cli/migrate.ts'),
  config: () => import('./cli/config.ts'),
  demo: () => import('./cli/demo.ts'),
};

/** 128 + signal number, as a shell reports it. */
const SIGNAL_EXIT = { SIGINT: 130, SIGTERM: 143 } as const;

async function main(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const line = parseCommandLine(argv);
  const { env, stdout, stderr } = process;
  if (line.version) {
    stdout.write(`outbox-relay ${version()}\n`);
    return 0;
  }
  if (line.help) {
    const { commandHelp, programHelp } = await import('./cli/help.ts');
    stdout.write(argv[0] === line.command ? commandHelp(line.command) : programHelp());
    return 0;
  }
  const { run } = await LOADERS[line.command]();
  return run({ args: line, env, signal, stdout, stderr });
}

/** First signal: drain. Second: a person or the orchestrator has no patience left, so end at once. */
function drainOnSignals(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(SIGNAL_EXIT[name]);
      controller.abort('drain');
    });
  }
  return controller.signal;
}

/** A reader that went away (`| head`) must not end in a stack trace; whoever writes learns of it from its write's callback. */
function ignoreBrokenPipes(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
}

/** Pipes are asynchronous on some systems: an exit before they are empty would cut the last lines off. */
async function flushed(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.writableLength === 0 || stream.destroyed) return;
  await new Promise<void>((resolve) => {
    stream.write('', () => resolve());
    setTimeout(resolve, 1000).unref();
  });
}

ignoreBrokenPipes();
const signal = drainOnSignals();
let exitCode: number;
try {
  exitCode = await main(process.argv.slice(2), signal);
} catch (error) {
  const failure = explainFailure(error, process.env['LOG_LEVEL']?.toLowerCase() === 'debug');
  process.stderr.write(`${failure.text}\n`);
  exitCode = failure.exitCode;
}
await Promise.all([flushed(process.stdout), flushed(process.stderr)]);
// Explicit, because a socket that some library forgot must not keep a drained process alive.
process.exit(exitCode);
