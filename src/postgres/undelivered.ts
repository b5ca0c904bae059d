import type { OutboxConfig } from '../config/config.ts';
import { quoteIdentifier } from './identifier.ts';

/**
 * What holds of an undelivered row, as SQL: with CLEANUP=mark its mark, otherwise that it is there. With CLEANUP=none
 * nothing tells it. The partial index of undelivered rows is made for this condition.
 */
export function isUndelivered(outbox: OutboxConfig, cleanup: 'delete' | 'mark' | 'none'): string {
  return cleanup === 'mark' ? isUnmarked(outbox) : 'true';
}

/** The condition of the mark itself. */
export function isUnmarked({ columns }: OutboxConfig): string {
  return `${quoteIdentifier(columns.deliveredAt)} is null`;
}
