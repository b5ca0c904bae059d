/**
 * How long a drain may still take, milliseconds: counted from the moment of the stop, over everything that it waits
 * for, so that the steps together stay within the limit that the orchestrator kills at.
 */
export function drainBudget(stop: AbortSignal, totalMs: number): () => number {
  let endMs = stop.aborted ? performance.now() + totalMs : undefined;
  stop.addEventListener(
    'abort',
    () => {
      endMs = performance.now() + totalMs;
    },
    { once: true },
  );
  return () => (endMs === undefined ? totalMs : Math.max(0, endMs - performance.now()));
}
