import type { Progress } from '../settle/progress.ts';
import type { Slot, SystemIdentity } from './streaming/slot.ts';

export type StartDecision =
  /** The slot is trusted: stream from the own durable position. */
  | { readonly kind: 'stream' }
  /** The slot is trusted, but the table pass in front of it was not finished. */
  | { readonly kind: 'resume-table' }
  /** Make a new slot and deliver from the table first. */
  | { readonly kind: 'hand-over'; readonly reason: HandoverReason };

export type HandoverReason =
  | 'first-start'
  | 'polled'
  | 'slot-missing'
  | 'slot-lost'
  | 'slot-idle-timeout'
  | 'slot-recreated'
  | 'wal-limit'
  | 'other-system'
  | 'other-timeline';

/**
 * Whether the slot can be trusted. Pure. Never acknowledging beyond what the progress row says makes the proof easy: a
 * slot that confirms more than the row is not the one that the row speaks of, and between the two lie events that no
 * stream would bring. (The other way round is normal: a crash of the server takes confirmed positions back.)
 */
export function decideStart(
  progress: Progress | undefined,
  slot: Slot | undefined,
  system: SystemIdentity,
  retentionLimitBytes: number,
): StartDecision {
  if (!progress) return handOver('first-start');
  if (progress.handover === 'polling') return handOver('polled');
  if (progress.systemIdentifier !== system.systemIdentifier) return handOver('other-system');
  if (progress.timeline !== system.timeline) return handOver('other-timeline');
  if (!slot) return handOver('slot-missing');
  if (slot.invalidationReason === 'idle_timeout') return handOver('slot-idle-timeout');
  if (slot.walStatus === 'lost' || slot.confirmedLsn === undefined) return handOver('slot-lost');
  if (slot.confirmedLsn > progress.durableLsn) return handOver('slot-recreated');
  if (slot.retainedBytes > retentionLimitBytes) return handOver('wal-limit');
  return { kind: progress.handover === 'complete' ? 'stream' : 'resume-table' };
}

function handOver(reason: HandoverReason): StartDecision {
  return { kind: 'hand-over', reason };
}
