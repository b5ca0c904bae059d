import { randomBytes } from 'node:crypto';

/** A name that no other test uses: lower case letters, digits and `_`, fit for databases, topics and queues. */
export function uniqueName(prefix: string): string {
  return `${prefix}_${randomBytes(6).toString('hex')}`;
}
