import { CERTIFICATE_CODES } from './certificate-codes.ts';
import { type Consequence, RelayError } from './errors.ts';

export interface Verdict {
  readonly consequence: Consequence;
  /** Stable, in metrics: a name of the relay, an SQLSTATE or a socket error's code. */
  readonly code: string;
  /** One sentence for the operator. */
  readonly advice: string;
}

/** What is asked of an error that nobody wrapped: PostgreSQL's SQLSTATE, a socket's code, and the message. */
interface Facts {
  readonly code: string;
  readonly message: string;
}

interface Rule extends Verdict {
  /** SQLSTATE, its class of two characters, or a socket's code. */
  readonly codes: readonly string[];
  /** Narrows the codes where one of them means several things. Servers may speak other languages: then the wider rule of the code applies. */
  readonly message?: RegExp;
}

export const ROW_SECURITY_ADVICE =
  'Let the user of DATABASE_URL see and remove every row of the outbox: ALTER ROLE … BYPASSRLS, or make it the owner.';

/**
 * Every error of PostgreSQL, of a socket and of the host, by what it means for the relay; the first rule that fits
 * wins. Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html. Brokers have tables of their own beside
 * their publishers. What is not listed is retried: unknown is never "failed".
 */
const RULES: readonly Rule[] = [
  // Credentials and identity
  stop('credentials', ['28P01'], 'Check user and password of DATABASE_URL, or what its secret file holds.'),
  stop(
    'client-refused',
    ['28'],
    'Let pg_hba.conf admit this user, address and database, with TLS as sslmode says.',
  ),
  stop('database-missing', ['3D000'], 'Create the database, or correct its name in DATABASE_URL.'),
  // Connection and server life
  {
    ...retry(
      'startup-parameter',
      ['08P01'],
      'Connect to PostgreSQL directly, or let the pooler pass "options".',
    ),
    message: /unsupported startup parameter/,
  },
  retry('connection-lost', ['08'], 'The connection broke; it is opened again.'),
  retry('server-starting', ['57P03'], 'PostgreSQL is starting, stopping or recovering; it is tried again.'),
  retry('server-stopping', ['57P01', '57P02', '57P05'], 'PostgreSQL ended the session; it is opened again.'),
  stop(
    'database-missing',
    ['57P04'],
    'The database was dropped; create it, or correct its name in DATABASE_URL.',
  ),
  retry(
    'statement-timeout',
    ['57014'],
    'A statement was cancelled or took too long; look for locks and slow disks.',
  ),
  {
    ...retry(
      'no-free-sender',
      ['53300'],
      'Raise max_wal_senders, or end a standby or backup that you do not need.',
    ),
    message: /max_wal_senders/,
  },
  retry('too-many-connections', ['53300'], 'Raise max_connections, or close sessions of others.'),
  // Slot and stream
  {
    ...retry('slot-lost', ['58P01', 'XX000', '55000'], 'The slot lost its WAL; the relay makes a new one.'),
    message:
      /requested WAL segment .* has already been removed|can(?:not| no longer) (?:read|get changes|access) .*slot|replication slot .*(?:invalidated|lost)/,
  },
  {
    ...retry('no-free-slot', ['53400'], 'Raise max_replication_slots, or drop an unused slot.'),
    message: /replication slots are in use|max_replication_slots/,
  },
  retry('out-of-resources', ['53'], 'PostgreSQL is out of memory, disk or slots; make room.'),
  retry(
    'slot-active',
    ['55006'],
    'Another process reads the slot: a second relay, or a connection that is dying.',
  ),
  {
    ...stop('wal-level', ['55000'], 'Run ALTER SYSTEM SET wal_level = logical and restart PostgreSQL.'),
    message: /wal_level/,
  },
  {
    ...retry('slot-missing', ['42704'], 'The replication slot is gone; the relay makes it again.'),
    message: /replication slot/,
  },
  {
    ...stop('publication-missing', ['42704'], 'Run `outbox-relay migrate`, which creates the publication.'),
    message: /publication/,
  },
  retry('slot-exists', ['42710'], 'Something of this name was created meanwhile; it is looked up again.'),
  // Objects and privileges
  stop('table-missing', ['42P01', '3F000'], 'Run `outbox-relay migrate`, or correct OUTBOX_TABLE.'),
  stop(
    'column-missing',
    ['42703'],
    'Run `outbox-relay migrate --adopt`, or name your columns with OUTBOX_*_COLUMN.',
  ),
  stop('function-missing', ['42883'], 'Run `outbox-relay migrate`; PostgreSQL 14 or newer is needed.'),
  stop('object-missing', ['42704'], 'Run `outbox-relay migrate`.'),
  {
    ...stop('privilege', ['42501'], 'Run ALTER ROLE … REPLICATION for the user of DATABASE_URL.'),
    message: /REPLICATION|replication (?:role|slots)|start WAL sender/,
  },
  {
    ...stop('row-security', ['42501'], ROW_SECURITY_ADVICE),
    message: /row-level security/,
  },
  stop('privilege', ['42501'], 'Grant what the message names to the user of DATABASE_URL.'),
  // The server can't write: a standby after a failover, or a disk that was made read-only
  retry('read-only', ['25006'], 'This server takes no writes; point DATABASE_URL to the primary.'),
  // Concurrency
  retry('conflict', ['40001', '40P01', '55P03'], 'Other sessions hold locks; it is tried again.'),
  retry('idle-in-transaction', ['25P03'], 'The relay was held up inside a transaction; it is tried again.'),
  retry('data-corrupted', ['XX001', 'XX002'], "PostgreSQL reports damaged data; look at the server's log."),
  retry('internal', ['XX', '58'], "PostgreSQL reports an internal error; look at the server's log."),
  // Sockets and names
  retry('refused', ['ECONNREFUSED'], 'Nothing listens there: is the server up, and are host and port right?'),
  retry(
    'unreachable',
    ['EHOSTUNREACH', 'ENETUNREACH', 'EHOSTDOWN', 'ENETDOWN'],
    'Check the route and the firewall.',
  ),
  retry(
    'timeout',
    ['ETIMEDOUT', 'ESOCKETTIMEDOUT'],
    'No answer in time: check the route, the firewall and the load.',
  ),
  retry(
    'connection-lost',
    ['ECONNRESET', 'EPIPE', 'ECONNABORTED'],
    'The connection broke; it is opened again.',
  ),
  retry(
    'name-unknown',
    ['ENOTFOUND', 'EAI_AGAIN', 'EAI_FAIL'],
    'The host name does not resolve: check it, and the DNS.',
  ),
  retry('out-of-descriptors', ['EMFILE', 'ENFILE'], 'Raise the limit of open files.'),
  // TLS: a certificate does not get better by itself, and every retry would be the same
  stop(
    'certificate',
    CERTIFICATE_CODES,
    'Give the certificate of the authority that signed the server (sslrootcert), and the name that is in it.',
  ),
];

/** Errors of the driver that carry no code. */
const MESSAGES: readonly { readonly pattern: RegExp; readonly verdict: Verdict }[] = [
  {
    pattern: /does not support SSL/,
    verdict: stop('tls-unsupported', [], 'Turn ssl on at the server, or choose a weaker sslmode knowingly.'),
  },
  {
    pattern: /client password must be a (?:non-empty )?string|password must be a string/i,
    verdict: stop(
      'credentials',
      [],
      'The server asks for a password: set it in DATABASE_URL or in a secret file.',
    ),
  },
  {
    pattern: /timeout expired|timeout/i,
    verdict: retry('timeout', [], 'No answer in time: check the route, the firewall and the load.'),
  },
  {
    pattern: /Connection terminated/,
    verdict: retry('connection-lost', [], 'The connection broke; it is opened again.'),
  },
];

/** What an error means: one table for the whole relay. A RelayError knows it itself, also as a cause. */
export function classify(error: unknown): Verdict {
  const known = relayErrorIn(error);
  if (known !== undefined) return verdict(known);
  const facts = factsOf(error);
  const found =
    RULES.find((rule) => fits(rule, facts)) ??
    MESSAGES.find(({ pattern }) => pattern.test(facts.message))?.verdict;
  if (found !== undefined) return verdict(found);
  return {
    consequence: 'retry',
    code: facts.code || 'unknown',
    advice: 'It is tried again; the message says more.',
  };
}

/** Every code that the table names. */
export function listedCodes(): readonly string[] {
  return [...new Set(RULES.flatMap((rule) => rule.codes))];
}

function fits(rule: Rule, { code, message }: Facts): boolean {
  const isState = /^[0-9A-Z]{5}$/.test(code);
  const named = rule.codes.some(
    (listed) => listed === code || (isState && listed.length === 2 && code.startsWith(listed)),
  );
  return named && (rule.message === undefined || rule.message.test(message));
}

function relayErrorIn(error: unknown): RelayError | undefined {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
    if (at instanceof RelayError) return at;
  return undefined;
}

/** The first code on the way down the causes; of several failed addresses (AggregateError) the first. */
function factsOf(error: unknown): Facts {
  const messages: string[] = [];
  let code = '';
  for (let at = error, depth = 0; at instanceof Error && depth < 8; depth++) {
    messages.push(at.message);
    if (code === '' && 'code' in at && typeof at.code === 'string') code = at.code;
    at = at.cause ?? (at instanceof AggregateError ? at.errors[0] : undefined);
  }
  return { code, message: messages.length === 0 ? String(error) : messages.join(': ') };
}

function verdict({ consequence, code, advice }: Verdict): Verdict {
  return { consequence, code, advice };
}

function stop(code: string, codes: readonly string[], advice: string): Rule {
  return { consequence: 'stop', code, codes, advice };
}

function retry(code: string, codes: readonly string[], advice: string): Rule {
  return { consequence: 'retry', code, codes, advice };
}
