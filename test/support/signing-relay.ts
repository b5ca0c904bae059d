import { randomInt } from 'node:crypto';
import fs, { writeSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { installFaultHook } from '../../src/lifecycle/fault-point.ts';
import { Leadership } from '../../src/lifecycle/leadership.ts';
import { Dispatcher } from '../../src/pipeline/publish/dispatcher.ts';
import { TOKEN_HEADER } from './late-messages.ts';

/**
 * The relay, with the token of the lease under which a message was read in its headers: it tells who published it.
 *
 * - ALONE=1: it takes itself to be in a process namespace of its own, as in another pod. Nobody can prove its death.
 * - SIGUSR2: it stops itself (SIGSTOP) at the CHECKS-th question for the lease from then on, between answer and write.
 */
const { ALONE: alone, CHECKS: checks = '1' } = process.env;

if (alone !== undefined) {
  const readlink = fs.readlinkSync;
  const namespace = `pid:[${randomInt(2 ** 40)}]`;
  fs.readlinkSync = ((path: string) =>
    path === '/proc/self/ns/pid' ? namespace : readlink(path)) as typeof fs.readlinkSync;
  syncBuiltinESMExports();
}

let token = 'none';
// oxlint-disable-next-line typescript/unbound-method -- called with its own `this` below
const { acquire } = Leadership.prototype;
Leadership.prototype.acquire = async function (signal) {
  const lease = await acquire.call(this, signal);
  if (lease) token = lease.token.toString();
  return lease;
};

// oxlint-disable-next-line typescript/unbound-method -- called with its own `this` below
const { add } = Dispatcher.prototype;
Dispatcher.prototype.add = function (message) {
  const headers = { ...message.headers, [TOKEN_HEADER]: token };
  add.call(this, Object.assign(message, { headers, sizeBytes: message.sizeBytes + 50 }));
};

let left = 0;
process.on('SIGUSR2', () => (left = Number(checks)));
installFaultHook((point) => {
  if (point !== 'after-lease-check' || left === 0 || --left > 0) return;
  writeSync(2, `fault-point ${point}\n`);
  process.kill(process.pid, 'SIGSTOP');
});

await import('../../src/main.ts');
