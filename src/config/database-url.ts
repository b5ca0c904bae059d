import type { SslMode } from './config.ts';
import { integer, oneOf } from './formats.ts';
import { refuseMisplacedAt } from './mask.ts';
import { messageOf } from '../errors/thrown.ts';

/** The parts that a libpq URL names; a part that it leaves open is undefined. */
export interface DatabaseUrl {
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly user?: string | undefined;
  readonly password?: string | undefined;
  readonly database?: string | undefined;
  readonly sslMode?: SslMode | undefined;
  readonly sslRootCert?: string | undefined;
  readonly sslCert?: string | undefined;
  readonly sslKey?: string | undefined;
  readonly connectTimeoutSeconds?: number | undefined;
  /** Parameters that have no effect here. */
  readonly ignored: readonly string[];
}

const FORM = 'expected postgresql://user:password@host:port/database';
const USED = new Set([
  'host',
  'port',
  'user',
  'password',
  'dbname',
  'ssl',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'connect_timeout',
]);

/**
 * https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS, one host only.
 * Throws an Error whose message completes "DATABASE_URL: …" and repeats no secret.
 */
export function parseDatabaseUrl(text: string): DatabaseUrl {
  if (!/^postgres(?:ql)?:\/\//u.test(text)) throw new Error(FORM);
  refuseMisplacedAt(text);
  refuseSeveralHosts(text);
  const url = urlOf(text);
  const parameter = (name: string): string | undefined => url.searchParams.get(name) || undefined;
  return {
    host: parameter('host') ?? decoded(url.hostname.replace(/^\[(.*)\]$/u, '$1'), 'host'),
    port: part('port', integer(1, 65_535), parameter('port') ?? (url.port || undefined)),
    user: parameter('user') ?? decoded(url.username, 'user'),
    password: parameter('password') ?? decoded(url.password, 'password'),
    database: parameter('dbname') ?? decoded(url.pathname.slice(1), 'database'),
    sslMode:
      part('sslmode', SSL_MODE, parameter('sslmode')) ??
      (parameter('ssl') === 'true' ? 'require' : undefined),
    sslRootCert: parameter('sslrootcert'),
    sslCert: parameter('sslcert'),
    sslKey: parameter('sslkey'),
    connectTimeoutSeconds: part('connect_timeout', integer(1, 3600), parameter('connect_timeout')),
    ignored: [...new Set(url.searchParams.keys())].filter((key) => !USED.has(key)),
  };
}

const SSL_MODE = oneOf(['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full']);

/** Sent to whichever answers, a relay could read from a standby without its slot: better refused than half supported. */
function refuseSeveralHosts(text: string): void {
  const authority = text.slice(text.indexOf('//') + 2).split(/[/?#]/u, 1)[0] ?? '';
  if (authority.slice(authority.lastIndexOf('@') + 1).includes(',')) {
    throw new Error('names several hosts; the relay connects to one, give the address of the primary');
  }
}

function urlOf(text: string): URL {
  // user:password@/database?host=/folder is right for libpq, but not for the URL standard.
  const complete = text.replace(/^([^/]+\/\/[^/?#]*@)(?=[/?])/u, '$1localhost');
  try {
    return new URL(complete);
  } catch {
    // oxlint-disable-next-line preserve-caught-error -- its `input` repeats the password
    throw new Error(
      `${FORM}; special characters in the password are written %XX (@ is %40, / is %2F, # is %23)`,
    );
  }
}

function decoded(text: string, what: string): string | undefined {
  try {
    return decodeURIComponent(text) || undefined;
  } catch (error) {
    throw new Error(`a % in the ${what} must be written %25`, { cause: error });
  }
}

function part<T>(name: string, format: (raw: unknown) => T, value: string | undefined): T | undefined {
  if (value === undefined) return undefined;
  try {
    return format(value);
  } catch (error) {
    const expected = messageOf(error);
    throw new Error(`${name}: ${expected}, got "${value}"`, { cause: error });
  }
}
