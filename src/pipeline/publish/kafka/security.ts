import type { ConnectionOptions } from 'node:tls';
import type { KafkaConfig, TlsConfig } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';
import { AUTHENTICATION_ADVICE } from './errors.ts';
import type { KafkaSasl } from './kafkajs.ts';

export function tlsOptions(ssl: TlsConfig): ConnectionOptions {
  const { ca, cert, key } = ssl;
  return {
    rejectUnauthorized: ssl.rejectUnauthorized,
    ...(ca === undefined ? {} : { ca: ca() }),
    ...(cert === undefined ? {} : { cert: cert() }),
    ...(key === undefined ? {} : { key: key() }),
  };
}

export function saslOptions(sasl: KafkaConfig['sasl']): KafkaSasl | undefined {
  if (sasl === undefined) return undefined;
  if (sasl.mechanism !== 'oauthbearer') {
    return { mechanism: sasl.mechanism, username: sasl.username, password: sasl.password() };
  }
  return { mechanism: 'oauthbearer', authenticationProvider: oauthBearer(sasl.token) };
}

/**
 * kafkajs ignores the answer to a token. A broker refuses one with a challenge (RFC 7628, 3.2.2), not with an error
 * code, so that a refused token would look accepted, and the next request would end the connection without a reason.
 */
function oauthBearer(token: () => string): NonNullable<KafkaSasl['authenticationProvider']> {
  return (connection) => ({
    authenticate: async () => {
      const initial = Buffer.from(`n,,\u0001auth=Bearer ${token().trim()}\u0001\u0001`);
      const sized = Buffer.concat([Buffer.alloc(4), initial]);
      sized.writeInt32BE(initial.length, 0);
      const refused = await connection.saslAuthenticate({
        request: { encode: async () => await Promise.resolve(sized) },
        response: { decode: same, parse: same },
      });
      if (!Buffer.isBuffer(refused) || refused.length <= 4) return;
      const text = refused.subarray(4).toString();
      throw new RelayError('stop', 'kafka-authentication', `The Kafka broker refused the token: ${text}`, {
        advice: AUTHENTICATION_ADVICE,
      });
    },
  });
}

async function same<T>(decoded: T): Promise<T> {
  return await Promise.resolve(decoded);
}
