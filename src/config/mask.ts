export const MASK = '******';

/** Parameters of a connection URL that hold no secret. Of any other only the name is shown. */
const OPEN_PARAMETERS = new Set([
  'host',
  'port',
  'user',
  'dbname',
  'ssl',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'connect_timeout',
  'application_name',
  'heartbeat',
  'frameMax',
  'channelMax',
]);

/**
 * A connection URL for the eyes of anybody: scheme, user, host, port and path as written, everything else masked. Built
 * from the parts, not cut out of the text: a password may hold every character that a pattern would stop at.
 */
export function maskUrl(text: string): string {
  const trimmed = text.trim();
  // user:password@/database is right for libpq, but not for the URL standard.
  const [, scheme = '', authority = '', rest = ''] =
    /^([a-z][a-z0-9+.-]*:\/\/)([^/?#]*)(.*)$/isu.exec(trimmed) ?? [];
  const withoutHost = authority === '' || authority.endsWith('@');
  const complete = withoutHost ? `${scheme}${authority}localhost${rest}` : trimmed;
  if (scheme === '' || !URL.canParse(complete)) return MASK;
  const url = new URL(complete);
  // With an @ behind the host, what looks like host and path may be pieces of a password.
  if (url.pathname.includes('@') || (!authority.includes('@') && rest.includes('@')))
    return `${scheme}${MASK}`;
  const user = authority.includes('@') ? `${url.username}${url.password === '' ? '' : `:${MASK}`}@` : '';
  const place = withoutHost ? url.pathname : `${url.host}${url.pathname === '/' ? '' : url.pathname}`;
  return `${scheme}${user}${place}${maskedQuery(url)}${url.hash === '' ? '' : `#${MASK}`}`;
}

function maskedQuery(url: URL): string {
  const parameters = [...url.searchParams].map(([name, value]) => {
    if (!isParameterName(name)) return MASK;
    return `${name}=${OPEN_PARAMETERS.has(name) ? value : MASK}`;
  });
  return parameters.length === 0 ? '' : `?${parameters.join('&')}`;
}

/** False for a piece of a password that came behind a "?" by mistake. */
export function isParameterName(name: string): boolean {
  return /^\w+$/u.test(name);
}

/**
 * Throws when a password with a "/", "?" or "#" in it has made half of it the host: `scheme://user:12?rest@host`. The
 * relay would connect elsewhere and tell the rest as a database or a parameter. The message repeats nothing.
 */
export function refuseMisplacedAt(text: string): void {
  const [, authority = '', path = '', behind = ''] = /^[^/]*\/\/([^/?#]*)(\/[^?#]*)?(.*)$/su.exec(text) ?? [];
  const misplaced = path.includes('@') || (behind.includes('@') && !authority.includes('@'));
  if (!misplaced) return;
  throw new Error(
    'has an "@" behind the host; special characters are written %XX (@ is %40, / is %2F, ? is %3F, # is %23)',
  );
}
