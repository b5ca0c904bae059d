import { createHash } from 'node:crypto';

/** Of everything that a consumer must see unchanged, beside destination and key. The journal makes the same in SQL. */
export function digestOf(event: { type: string; trace: string; body: Buffer | null }): string {
  const { type, trace, body } = event;
  return `${type} ${trace} ${body === null ? 'null' : createHash('sha256').update(body).digest('hex')}`;
}
