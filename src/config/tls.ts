import type { ConnectionOptions } from 'node:tls';
import type { TlsConfig } from './config.ts';

/** For one attempt to connect: files that were rotated are read anew. */
export function tlsOptions({
  rejectUnauthorized,
  ca,
  cert,
  key,
}: TlsConfig): Pick<ConnectionOptions, 'rejectUnauthorized' | 'ca' | 'cert' | 'key'> {
  return {
    rejectUnauthorized,
    ...(ca && { ca: ca() }),
    ...(cert && { cert: cert() }),
    ...(key && { key: key() }),
  };
}
