import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { createInterface } from 'node:readline';
import { createStdoutPublisher } from '../../pipeline/publish/stdout/publisher.ts';
import type { Consumer, ConsumerOptions } from './consumer.ts';

/** Takes the lines that would go to standard output: there the demo shows the events in its own way. */
export function openStdoutConsumer({ onArrival }: ConsumerOptions): Consumer {
  const output = new PassThrough();
  const lines = createInterface({ input: output, crlfDelay: Infinity });
  lines.on('line', (line) => onArrival((JSON.parse(line) as { id: string }).id));
  const end = once(lines, 'close');
  return {
    name: 'a reader of the JSON lines',
    createPublisher: async (_config, events) => await Promise.resolve(createStdoutPublisher(output, events)),
    finish: async () => {
      output.end();
      await end;
    },
    close: async () => {
      output.destroy();
      await Promise.resolve(lines.close());
    },
  };
}
