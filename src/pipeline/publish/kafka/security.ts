import { RelayError } from '../../../errors/errors.ts';
import { AUTHENTICATION_ADVICE } from './errors.ts';

/** The first message of OAUTHBEARER (RFC 7628, 3.1). */
export function bearerMessage(token: string): Buffer {
  return Buffer.from(`n,,\u0001auth=Bearer ${token.trim()}\u0001\u0001`);
}

/**
 * A broker refuses a token with a challenge (RFC 7628, 3.2.2), not with an error code, and ends the connection at the next
 * request, without a reason. @throws RelayError when there is one.
 */
export function refuseChallenge(challenge: Buffer): void {
  if (challenge.length === 0) return;
  const text = `The Kafka broker refused the token: ${challenge.toString()}`;
  throw new RelayError('stop', 'kafka-authentication', text, { advice: AUTHENTICATION_ADVICE });
}
