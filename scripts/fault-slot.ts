import { idleOutbox } from '../test/fault/idle.ts';
import { walLimit } from '../test/fault/wal-limit.ts';
import { counts, nothingWrong, type Outcome } from './fault-result.ts';

/** What the slot keeps of the database's log, measured for long. */

const MIB = 1024 ** 2;
const SEGMENT_BYTES = 16 * MIB;
/**
 * The position is noted every ten seconds, the server notes every 15 s from where on it needs the log, and of these notes
 * only one is under way at a time: the log of twice ten and twice 15 seconds, and a moment.
 */
const MOST_IDLE_SECONDS = 60;

export async function runWalLimit(
  slot: 'in-use' | 'in-the-making',
  given: { seconds: number; rate: number; limitMib: number },
): Promise<Outcome> {
  const { seconds, rate, limitMib } = given;
  const result = await walLimit({ seconds, rate, limitBytes: limitMib * MIB, slot });
  const { verdict, mostRetainedBytes, writtenBytes, drainedMs } = result;
  const tested = writtenBytes > limitMib * MIB;
  const bounded = mostRetainedBytes <= limitMib * MIB + SEGMENT_BYTES;
  return {
    ...counts(verdict),
    writtenMiB: inMib(writtenBytes),
    mostRetainedMiB: inMib(mostRetainedBytes),
    drainedMs: Math.round(drainedMs),
    kept: tested && bounded && nothingWrong(verdict),
  };
}

export async function runIdle(version: 14 | 18, seconds: number): Promise<Outcome> {
  const result = await idleOutbox({ seconds, version, noise: 'both', intensity: 2 });
  const { writtenBytes, retainedBytes, mostSeconds } = result;
  return {
    writtenMiB: inMib(writtenBytes),
    retainedMiB: retainedBytes.map(inMib),
    mostSeconds: Number(mostSeconds.toFixed(1)),
    kept: seconds > MOST_IDLE_SECONDS && mostSeconds < MOST_IDLE_SECONDS,
  };
}

function inMib(bytes: number): number {
  return Math.round(bytes / MIB);
}
