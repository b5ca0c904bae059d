import { CONFIG_FILE_VARIABLE, VARIABLES } from './settings.ts';
import { nearest } from './nearest.ts';

const PREFIXES = [
  'DATABASE_',
  'DELETED_',
  'NOTIFY_',
  'OUTBOX_',
  'KAFKA_',
  'RABBITMQ_',
  'ROUTE_',
  'HTTP_',
  'LOG_',
  'DEAD_LETTER_',
  'WAL_',
  'SLOT_',
  'PUBLICATION_',
  'MAX_',
  'MARK_',
  'PARTITION_',
  'TOPIC_',
  'SHUTDOWN_',
];

/** What libpq takes from the environment and the relay does not: who sets it counts on it. */
const UNUSED = [
  'PGCHANNELBINDING',
  'PGHOSTADDR',
  'PGPASSFILE',
  'PGPASSWORD_FILE',
  'PGREQUIREAUTH',
  'PGSERVICE',
  'PGSERVICEFILE',
  'PGSSLCRL',
  'PGSSLCRLDIR',
  'PGTARGETSESSIONATTRS',
];

/** Other software's well-known names that begin like ours. */
const FOREIGN = new Set(['HTTP_PROXY']);

/** What Kubernetes puts into every pod for a Service of the namespace: KAFKA_PORT_9092_TCP_ADDR=…, KAFKA_SERVICE_HOST=…. */
const SERVICE_LINK =
  /_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)$/u;
const SERVICE_ADDRESS = /^(?:tcp|udp|sctp):\/\//u;

/** One sentence for each variable that looks like ours and isn't; other software may own it, so that it is no error. */
export function unknownVariables(env: NodeJS.ProcessEnv): readonly string[] {
  const suspicious = Object.keys(env)
    .filter((name) => isSuspicious(name, env[name] ?? ''))
    .map((name) => `${name}: no such variable; the nearest is ${nearest(name, VARIABLES)}`);
  const unused = UNUSED.filter((name) => env[name]).map(
    (name) =>
      `${name}: not used here; see DATABASE_URL, DATABASE_PASSWORD_FILE and the PG* variables of the reference`,
  );
  return [...suspicious, ...unused];
}

function isSuspicious(name: string, value: string): boolean {
  if (!PREFIXES.some((prefix) => name.startsWith(prefix))) return false;
  if (VARIABLES.includes(name) || name === CONFIG_FILE_VARIABLE || FOREIGN.has(name)) return false;
  return !isServiceLink(name, value);
}

/** True for a variable that Kubernetes made, not a person. */
export function isServiceLink(name: string, value: string): boolean {
  return SERVICE_LINK.test(name) || (name.endsWith('_PORT') && SERVICE_ADDRESS.test(value));
}
