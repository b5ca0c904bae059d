import { viewOf } from '../../src/pipeline/capture/byte-range.ts';
import { loadConfig } from '../../src/config/load.ts';
import { createLogger } from '../../src/observe/log.ts';
import { DURABLE } from '../../src/pipeline/publish/publisher.ts';
import { Relay } from '../../src/relay.ts';
import { MemoryPublisher } from './memory-publisher.ts';

/** A relay whose broker never answers for events of type WITHHOLD: they stay between durable and not. */
const { WITHHOLD: withheld, ...env } = process.env;
const publisher = new MemoryPublisher();
publisher.answer = ({ type, id, key, body }) => {
  if (type === withheld) return undefined;
  process.stdout.write(`${JSON.stringify({ id, key, payload: viewOf(body)?.toString() ?? null })}\n`);
  return DURABLE;
};
const config = loadConfig(env);
const log = createLogger({ ...config.log, write: (line) => void process.stderr.write(line), now: Date.now });
await new Relay({
  config,
  log,
  version: 'test',
  stop: new AbortController().signal,
  createPublisher: (_config, events) => Promise.resolve(publisher.attach(events)),
}).run();
