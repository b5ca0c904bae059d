import { userInfo } from 'node:os';
import type { DatabaseConfig, DatabaseConnection, Secret, SslMode } from './config.ts';
import { parseDatabaseUrl } from './database-url.ts';
import type { DatabaseUrl } from './database-url.ts';
import { isParameterName } from './mask.ts';
import { problemOf, readSecretFile, secretOf } from './secret.ts';
import type { Settings } from './settings.ts';

const CONNECTION_VARIABLES = ['PGHOST', 'PGUSER', 'PGDATABASE'];

/**
 * DATABASE_URL, its gaps filled from the PG* variables as libpq does. Notes problems; the returned function throws
 * RelayError('stop') when a file that was readable at start no longer is.
 */
export function databaseConfig(settings: Settings, warn: (text: string) => void): DatabaseConfig {
  const url = secretOf(settings, 'DATABASE_URL');
  const password = secretOf(settings, 'DATABASE_PASSWORD');
  const { problems } = settings;
  const given = settings.raw('DATABASE_URL') !== null || settings.raw('DATABASE_URL_FILE') !== null;
  if (!given && CONNECTION_VARIABLES.every((name) => settings.layer(name) === 'default')) {
    const message =
      'required: postgresql://user:password@host:port/database, or PGHOST, PGUSER and PGDATABASE';
    problems.push({ variable: 'DATABASE_URL', message });
  }
  const connection = (): DatabaseConnection => connect(settings, url, password);
  const variable =
    url !== undefined && settings.raw('DATABASE_URL') === null ? 'DATABASE_URL_FILE' : 'DATABASE_URL';
  const bad = problemOf(variable, () => url && parseDatabaseUrl(url()));
  if (bad !== undefined) problems.push(bad);
  else checkConnection(settings, url, warn);
  return { connection };
}

function checkConnection(settings: Settings, url: Secret | undefined, warn: (text: string) => void): void {
  const parsed = parsedUrl(url);
  for (const name of parsed.ignored) {
    // Anything else may be a piece of a password.
    const named = isParameterName(name) ? `the parameter "${name}"` : 'a parameter whose name is no word';
    warn(`DATABASE_URL: ${named} is not used`);
  }
  const files = tlsFiles(settings, parsed);
  const mode = sslMode(settings, parsed);
  const { problems } = settings;
  for (const { variable, path } of [files.rootCert, files.cert, files.key]) {
    if (path === undefined || path === 'system') continue;
    const problem = problemOf(variable, () => readSecretFile(variable, path));
    if (problem !== undefined) problems.push(problem);
  }
  if (files.cert.path !== undefined && files.key.path === undefined) {
    problems.push({ variable: 'PGSSLKEY', message: 'required with a client certificate (PGSSLCERT)' });
  }
  if (files.key.path !== undefined && files.cert.path === undefined) {
    problems.push({
      variable: 'PGSSLCERT',
      message: 'required with the key of a client certificate (PGSSLKEY)',
    });
  }
  if (mode === 'verify-ca' && (files.rootCert.path ?? 'system') === 'system') {
    const message = 'sslmode=verify-ca needs the file of your own authority here; or use sslmode=verify-full';
    problems.push({ variable: 'PGSSLROOTCERT', message });
  } else if (files.rootCert.path === 'system' && mode !== 'verify-full') {
    const message = `"system" needs sslmode=verify-full, got ${mode}`;
    problems.push({ variable: 'PGSSLROOTCERT', message });
  }
  const noUser = problemOf('PGUSER', () => user(settings, parsed));
  if (noUser !== undefined) problems.push(noUser);
}

function connect(
  settings: Settings,
  url: Secret | undefined,
  password: Secret | undefined,
): DatabaseConnection {
  const { values } = settings;
  const parsed = parsedUrl(url);
  const files = tlsFiles(settings, parsed);
  const role = user(settings, parsed);
  return {
    host: parsed.host ?? values.PGHOST,
    port: parsed.port ?? values.PGPORT,
    user: role,
    database: parsed.database ?? values.PGDATABASE ?? role,
    password: password?.() ?? parsed.password ?? values.PGPASSWORD,
    sslMode: sslMode(settings, parsed),
    sslRootCert: files.rootCert.path === 'system' ? 'system' : content(files.rootCert),
    sslCert: content(files.cert),
    sslKey: content(files.key),
    connectTimeoutMs: (parsed.connectTimeoutSeconds ?? values.PGCONNECT_TIMEOUT) * 1000,
  };
}

function parsedUrl(url: Secret | undefined): DatabaseUrl {
  return url === undefined ? { ignored: [] } : parseDatabaseUrl(url());
}

interface TlsFile {
  readonly variable: string;
  readonly path: string | undefined;
}

function tlsFiles(settings: Settings, url: DatabaseUrl): { rootCert: TlsFile; cert: TlsFile; key: TlsFile } {
  const { values } = settings;
  return {
    rootCert: { variable: 'PGSSLROOTCERT', path: url.sslRootCert ?? values.PGSSLROOTCERT },
    cert: { variable: 'PGSSLCERT', path: url.sslCert ?? values.PGSSLCERT },
    key: { variable: 'PGSSLKEY', path: url.sslKey ?? values.PGSSLKEY },
  };
}

function content({ variable, path }: TlsFile): string | undefined {
  return path === undefined ? undefined : readSecretFile(variable, path);
}

/** libpq: sslrootcert=system makes verify-full the default, because a public authority vouches for names only. */
function sslMode(settings: Settings, url: DatabaseUrl): SslMode {
  const system = (url.sslRootCert ?? settings.values.PGSSLROOTCERT) === 'system';
  return url.sslMode ?? settings.values.PGSSLMODE ?? (system ? 'verify-full' : 'prefer');
}

function user(settings: Settings, url: DatabaseUrl): string {
  const named = url.user ?? settings.values.PGUSER;
  if (named !== undefined) return named;
  try {
    return userInfo().username;
  } catch (error) {
    // A container may run as a number without a name.
    throw new Error('required: the role to connect as, here or in DATABASE_URL', { cause: error });
  }
}
