import type { TargetMessage } from './target.ts';

/** Holds the token of the lease under which the message was read; see `signing-relay.ts`. */
export const TOKEN_HEADER = 'lease-token';

/**
 * How many messages of each token arrived after one of a later token with the same key: of those two publishers were
 * interleaved, since a token belongs to one period of leading.
 */
export function lateMessages(received: Iterable<TargetMessage>): Map<number, number> {
  const latest = new Map<string | null, number>();
  const late = new Map<number, number>();
  for (const { key, headers } of received) {
    const token = Number(headers[TOKEN_HEADER]);
    if (!Number.isSafeInteger(token)) throw new RangeError(`a message without ${TOKEN_HEADER}`);
    const before = latest.get(key) ?? token;
    if (token < before) late.set(token, (late.get(token) ?? 0) + 1);
    latest.set(key, Math.max(before, token));
  }
  return late;
}
