import { writeSync } from 'node:fs';
import { installFaultHook } from '../../src/lifecycle/fault-point.ts';
import { parseFaults } from './fault.ts';
import type { Fault } from './fault.ts';

const hits = new Map<string, number>();
const faults = parseFaults(process.env['FAULT'] ?? '');

function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function act({ point, action }: Fault): void {
  writeSync(2, `fault-point ${point}\n`);
  switch (action.kind) {
    case 'kill': {
      process.kill(process.pid, 'SIGKILL');
      // The signal may need a moment; no further instruction of the program may run.
      block(Infinity);
      break;
    }
    case 'stop': {
      process.kill(process.pid, 'SIGSTOP');
      break;
    }
    case 'delay': {
      block(action.ms);
      break;
    }
    case 'notify': {
      break;
    }
  }
}

installFaultHook((point) => {
  const hit = (hits.get(point) ?? 0) + 1;
  hits.set(point, hit);
  for (const fault of faults) {
    if (fault.point === point && (fault.hit === undefined || fault.hit === hit)) act(fault);
  }
});
