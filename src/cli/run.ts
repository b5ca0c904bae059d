import { loadConfig } from '../config/load.ts';
import { createLogger } from '../observe/log.ts';
import { Relay } from '../relay.ts';
import { version } from '../version.ts';
import { loadOptions, type CommandContext } from './command.ts';

/** The daemon: until SIGTERM or SIGINT. Exit code 1 when something that was sent remained without an answer. */
export async function run(context: CommandContext): Promise<number> {
  const { env, signal, stderr } = context;
  const config = loadConfig(env, loadOptions(context));
  const log = createLogger({ ...config.log, write: (line) => void stderr.write(line), now: Date.now });
  log.info('outbox-relay starts', { version: version(), broker: config.broker.kind, slot: config.slotName });
  const { unknown, clean } = await new Relay({ config, log, version: version(), stop: signal }).run();
  if (unknown === 0 && clean) {
    log.info('drained and stopped');
    return 0;
  }
  log.warn('stopped before everything was confirmed; what is unknown will be delivered again', { unknown });
  return 1;
}
