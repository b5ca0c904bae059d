import { isIP } from 'node:net';
import { type ConnectionOptions, checkServerIdentity } from 'node:tls';
import type { DatabaseConnection, SslMode } from '../config/config.ts';
import { RelayError } from '../errors/errors.ts';

/** What `pg` takes as `ssl`: no TLS, or the options of `tls.connect`. */
export type Tls = false | ConnectionOptions;

/**
 * The ways to try, in order, with the meaning that libpq gives to sslmode:
 * https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION
 * Throws a `stop` error when the mode asks for a verification that can't be done.
 */
export function tlsAttempts(connection: DatabaseConnection): readonly Tls[] {
  // Like libpq: a Unix socket never carries TLS, whatever the mode says.
  if (connection.host.startsWith('/')) return [false];
  return WAYS[connection.sslMode](connection);
}

/** True when the next way may be tried: TLS itself was the obstacle, not the password and not the network. */
export function isTlsRefusal(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = 'code' in error ? String(error.code) : '';
  // pg_hba.conf has lines of kind `hostssl` and `hostnossl`; the server says 28000 when none fits this connection.
  if (code === '28000') return true;
  return (
    /does not support SSL|establishing an SSL connection/.test(error.message) ||
    /^(ERR_SSL|ERR_TLS|EPROTO)/.test(code)
  );
}

function certificates(connection: DatabaseConnection): ConnectionOptions {
  return {
    minVersion: 'TLSv1.2',
    // RFC 6066: an IP address is no server name.
    ...(isIP(connection.host) === 0 ? { servername: connection.host } : {}),
    ...(connection.sslCert === undefined ? {} : { cert: connection.sslCert }),
    ...(connection.sslKey === undefined ? {} : { key: connection.sslKey }),
    ...(connection.sslRootCert === undefined || connection.sslRootCert === 'system'
      ? {}
      : { ca: connection.sslRootCert }),
  };
}

function unverified(connection: DatabaseConnection): Tls {
  return { ...certificates(connection), rejectUnauthorized: false };
}

function chainVerified(connection: DatabaseConnection): Tls {
  if (connection.sslRootCert === undefined || connection.sslRootCert === 'system')
    throw new RelayError(
      'stop',
      'tls-root-certificate',
      'sslmode=verify-ca needs a root certificate of your own',
      {
        // Anybody can get a certificate for some name from a public authority, so that without the name it proves nothing.
        advice:
          'Give the certificate of the authority that signed the server (sslrootcert), or use sslmode=verify-full.',
      },
    );
  return { ...certificates(connection), rejectUnauthorized: true, checkServerIdentity: () => undefined };
}

function hostVerified(connection: DatabaseConnection): Tls {
  return {
    ...certificates(connection),
    rejectUnauthorized: true,
    // Node falls back to the name 'localhost' when a socket is handed over without one.
    checkServerIdentity: (_name, certificate) => checkServerIdentity(connection.host, certificate),
  };
}

const WAYS: Readonly<Record<SslMode, (connection: DatabaseConnection) => readonly Tls[]>> = {
  disable: () => [false],
  allow: (connection) => [false, unverified(connection)],
  prefer: (connection) => [unverified(connection), false],
  // Like libpq: with a root certificate at hand, `require` verifies the chain.
  require: (connection) => [
    connection.sslRootCert === undefined ? unverified(connection) : chainVerified(connection),
  ],
  'verify-ca': (connection) => [chainVerified(connection)],
  'verify-full': (connection) => [hostVerified(connection)],
};
