import { randomInt } from 'node:crypto';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import type * as FaultPoints from '../../../src/lifecycle/fault-point.ts';

/**
 * The relay, with a wall clock that can be stepped. RELAY_MAIN: which relay. SIGUSR2: the clock goes by CLOCK_STEP_MS,
 * with the next one back again. ALONE=1: it takes itself to be in a process namespace of its own, as in another pod.
 * STOP_AT=<fault point>:<hit>: it stops itself (SIGSTOP) there.
 */
const { ALONE: alone, CLOCK_STEP_MS: step = '0', RELAY_MAIN: main, STOP_AT: stopAt } = process.env;
if (main === undefined) throw new Error('RELAY_MAIN is missing');

if (alone !== undefined) {
  const readlink = fs.readlinkSync;
  const namespace = `pid:[${randomInt(2 ** 40)}]`;
  fs.readlinkSync = ((path: string) =>
    path === '/proc/self/ns/pid' ? namespace : readlink(path)) as typeof fs.readlinkSync;
  syncBuiltinESMExports();
}

let offsetMs = 0;
const { Date: RealDate } = globalThis;
const now = (): number => RealDate.now() + offsetMs;
globalThis.Date = new Proxy(RealDate, {
  construct: (target, args) => Reflect.construct(target, args.length === 0 ? [now()] : args) as Date,
  get: (target, name) => (name === 'now' ? now : (Reflect.get(target, name) as unknown)),
});
process.on('SIGUSR2', () => {
  offsetMs = offsetMs === 0 ? Number(step) : 0;
});

if (stopAt !== undefined) {
  const [point, hit] = stopAt.split(':');
  let hits = 0;
  const url = new URL('lifecycle/fault-point.ts', main).href;
  // That of the relay to be run, which need not be this checkout's.
  const { installFaultHook } = (await import(url)) as typeof FaultPoints;
  installFaultHook((name) => {
    if (name === point && ++hits === Number(hit)) process.kill(process.pid, 'SIGSTOP');
  });
}

await import(main);
