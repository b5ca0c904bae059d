/**
 * Named places at which a test may kill, stop or delay the process. Without a hook, which only the test preload
 * installs, every call is a no-op; nothing in `src/` installs one, so the image can't be made to fail this way.
 */
export type FaultPoint =
  | 'after-slot-create'
  | 'after-snapshot-import'
  | 'after-handover-row'
  | 'during-table-pass'
  | 'during-poll'
  | 'after-handover-complete'
  | 'after-receive-before-publish'
  | 'after-lease-check'
  | 'after-publish-before-outcome'
  | 'after-publish-before-settle'
  | 'after-settle-before-acknowledge'
  | 'after-acknowledge'
  | 'after-park-decision'
  | 'during-drain';

export type FaultHook = (point: FaultPoint) => void;

let hook: FaultHook | undefined;

export function installFaultHook(next: FaultHook | undefined): void {
  hook = next;
}

/** Synchronous on purpose: a hook kills or stops the process before the next instruction. */
export function faultPoint(point: FaultPoint): void {
  hook?.(point);
}
