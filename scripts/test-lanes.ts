import { run } from 'node:test';
import type { TestEvent } from './test-groups.ts';

export interface FileRun {
  readonly file: string;
  readonly seconds: number;
  readonly events: readonly TestEvent[];
}

export interface Lanes {
  /** How many files run at a time. */
  readonly count: number;
  readonly fileTimeoutMs: number;
  readonly signal: AbortSignal;
}

/** Runs each file in a process of its own, in this order, and gives what it reported as soon as it has ended. */
export async function* runInLanes(files: readonly string[], lanes: Lanes): AsyncGenerator<FileRun> {
  const waiting = [...files];
  const running = new Map<string, Promise<FileRun>>();
  for (;;) {
    while (running.size < lanes.count && !lanes.signal.aborted) {
      const file = waiting.shift();
      if (file === undefined) break;
      running.set(file, runFile(file, lanes));
    }
    if (running.size === 0) return;
    const ended = await Promise.race(running.values());
    running.delete(ended.file);
    yield ended;
  }
}

/** One run a file: a run of several holds back what a file reported until those before it have ended. */
async function runFile(file: string, { fileTimeoutMs, signal }: Lanes): Promise<FileRun> {
  const startMs = performance.now();
  const events: TestEvent[] = [];
  const stream = run({ files: [file], timeout: fileTimeoutMs, signal });
  for await (const event of stream as AsyncIterable<TestEvent>) events.push(event);
  return { file, seconds: (performance.now() - startMs) / 1000, events };
}
