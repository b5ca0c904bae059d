import { RelayError } from '../../errors/errors.ts';

/** Reads `seq` or `xid`: a decimal integer below 2^53, the largest that a number holds exactly. */
export function parseIdentity(column: string, text: string | null | undefined): number {
  const value = Number(text);
  if (text === null || text === undefined || text === '' || !Number.isSafeInteger(value) || value < 0) {
    throw new RelayError('stop', 'identity-invalid', `column ${column} holds ${text ?? 'NULL'}`, {
      advice: `${column} must be an integer from 0 to 2^53-1 in every row; run "outbox-relay migrate" to set its default.`,
    });
  }
  return value;
}
