import { readdirSync, readlinkSync, renameSync, writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Probe } from './soak-probe.ts';

/** The relay (SOAK_MAIN: which), which writes down what it holds into PROBE_FILE at each SIGWINCH. */
const { PROBE_FILE: file, SOAK_MAIN: main } = process.env;
if (file === undefined || main === undefined) throw new Error('PROBE_FILE and SOAK_MAIN are missing');

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

process.on('SIGWINCH', () => {
  // Before the collection: that is the size the process has in its own time.
  const rssBytes = process.memoryUsage.rss();
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  const resources = process.getActiveResourcesInfo();
  const timers = resources.filter((name) => name === 'Timeout').length;
  const { descriptors, sockets } = countDescriptors();
  const probe: Probe = {
    pid: process.pid,
    rssBytes,
    heldBytes: heapUsed + external,
    descriptors,
    sockets,
    handles: resources.length - timers,
    timers,
  };
  // Whole or not at all: somebody waits for it to appear.
  writeFileSync(`${file}.new`, JSON.stringify(probe));
  renameSync(`${file}.new`, file);
});

await import(main);

function countDescriptors(): { descriptors: number; sockets: number } {
  const names = readdirSync('/proc/self/fd');
  const targets = names.map((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`);
    } catch {
      // The one that the folder itself was read by.
      return '';
    }
  });
  return {
    descriptors: targets.filter((target) => target !== '').length,
    sockets: targets.filter((target) => target.startsWith('socket:')).length,
  };
}
