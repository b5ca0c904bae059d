import { ConfigError } from '../errors/errors.ts';
import { parseTemplate } from '../pipeline/envelope/template.ts';
import { brokerConfig } from './brokers.ts';
import type { Config } from './config.ts';
import { databaseConfig } from './database.ts';
import { readConfigFile } from './file.ts';
import type { Group } from './schema.ts';
import { CONFIG_FILE_VARIABLE, checkGroups, mergeSettings } from './settings.ts';
import type { Settings } from './settings.ts';
import { isServiceLink, unknownVariables } from './unknown.ts';

export interface LoadOptions {
  /** The `--config` file; wins over OUTBOX_RELAY_CONFIG. */
  readonly file?: string | undefined;
  /** The log goes to a terminal: then it is pretty by default. */
  readonly terminal?: boolean;
  /** Takes one sentence for each setting that is probably a mistake. */
  readonly warn?: (text: string) => void;
}

/** The part of the configuration that commands need which don't touch the broker. */
export type DatabasePart = Pick<
  Config,
  'database' | 'outbox' | 'source' | 'slotName' | 'publicationName' | 'cleanup' | 'maxEventBytes' | 'log'
>;

const DATABASE_GROUPS: readonly Group[] = ['database', 'outbox', 'source', 'limits', 'operation'];

/** The whole configuration: default < file < environment. Throws one ConfigError with every problem. */
export function loadConfig(env: NodeJS.ProcessEnv, options: LoadOptions = {}): Config {
  return loadChecked(env, options).config;
}

/** As `loadConfig`, with the settings it was made from, for `outbox-relay config`. */
export function loadChecked(
  env: NodeJS.ProcessEnv,
  options: LoadOptions = {},
): { config: Config; settings: Settings } {
  const settings = readSettings(env, options);
  checkGroups(settings, ['broker']);
  const { BROKER: broker } = settings.values;
  // Another broker's variables may be the application's own, in a sidecar; without a choice all are ours to check.
  const brokers: readonly Group[] = broker === undefined ? ['kafka', 'rabbitmq'] : [];
  const chosen: readonly Group[] = broker === 'kafka' || broker === 'rabbitmq' ? [broker] : brokers;
  checkGroups(settings, [...DATABASE_GROUPS, ...chosen, 'route']);
  const warn = options.warn ?? (() => undefined);
  const config: Config = {
    ...databasePart(settings, env, options),
    broker: brokerConfig(settings, warn),
    route: { topic: settings.values.ROUTE_TOPIC, key: settings.values.ROUTE_KEY },
    markRetentionMs: settings.values.MARK_RETENTION,
    partitionRetentionMs: settings.values.PARTITION_RETENTION,
    maxAttempts: settings.values.MAX_ATTEMPTS,
    maxInFlightBytes: settings.values.MAX_IN_FLIGHT_BYTES,
    maxInFlightEvents: settings.values.MAX_IN_FLIGHT_EVENTS,
    notifyChannel: settings.values.NOTIFY_CHANNEL ?? undefined,
    walRetentionLimitBytes: settings.values.WAL_RETENTION_LIMIT_BYTES,
    deletedAtOnce: DELETED_AT_ONCE[settings.values.DELETED_AT_ONCE],
    slotFailover: settings.values.SLOT_FAILOVER,
    topicGraceMs: settings.values.TOPIC_GRACE_MS,
    http: { host: settings.values.HTTP_HOST, port: settings.values.HTTP_PORT },
    shutdownTimeoutMs: settings.values.SHUTDOWN_TIMEOUT_MS,
  };
  checkLimits(settings);
  checkTopic(settings);
  checkSource(settings);
  checkRetention(settings);
  throwProblems(settings);
  return { config, settings };
}

/** For commands without a broker (`migrate`): the other settings are neither needed nor checked. */
export function loadDatabasePart(env: NodeJS.ProcessEnv, options: LoadOptions = {}): DatabasePart {
  const settings = readSettings(env, options);
  checkGroups(settings, DATABASE_GROUPS);
  const part = databasePart(settings, env, options);
  throwProblems(settings);
  return part;
}

function readSettings(env: NodeJS.ProcessEnv, options: LoadOptions): Settings {
  const path = options.file ?? (env[CONFIG_FILE_VARIABLE] || undefined);
  const variable = options.file === undefined ? CONFIG_FILE_VARIABLE : '--config';
  const file = path === undefined ? { values: {}, problems: [] } : readConfigFile(path, variable);
  const settings = mergeSettings(env, file.values);
  settings.problems.push(...file.problems);
  for (const text of unknownVariables(env)) options.warn?.(text);
  return settings;
}

function databasePart(settings: Settings, env: NodeJS.ProcessEnv, options: LoadOptions): DatabasePart {
  const { values } = settings;
  explainServiceLink(settings, env);
  return {
    database: databaseConfig(settings, options.warn ?? (() => undefined)),
    outbox: {
      ...values.OUTBOX_TABLE,
      numbered: true,
      columns: {
        id: values.OUTBOX_ID_COLUMN,
        aggregateType: values.OUTBOX_AGGREGATE_TYPE_COLUMN,
        aggregateId: values.OUTBOX_AGGREGATE_ID_COLUMN,
        type: values.OUTBOX_TYPE_COLUMN,
        payload: values.OUTBOX_PAYLOAD_COLUMN,
        headers: values.OUTBOX_HEADERS_COLUMN,
        seq: values.OUTBOX_SEQ_COLUMN,
        xid: values.OUTBOX_XID_COLUMN,
        createdAt: values.OUTBOX_CREATED_AT_COLUMN,
        deliveredAt: values.OUTBOX_DELIVERED_AT_COLUMN,
      },
    },
    source: values.SOURCE,
    slotName: values.SLOT_NAME,
    publicationName: values.PUBLICATION_NAME,
    cleanup: values.CLEANUP,
    maxEventBytes: values.MAX_EVENT_BYTES,
    log: { level: values.LOG_LEVEL, format: values.LOG_FORMAT ?? (options.terminal ? 'pretty' : 'json') },
  };
}

/** A Service called "http" makes Kubernetes set HTTP_PORT=tcp://…: "expected a whole number" alone would be a riddle. */
function explainServiceLink(settings: Settings, env: NodeJS.ProcessEnv): void {
  const value = env['HTTP_PORT'] ?? '';
  if (!isServiceLink('HTTP_PORT', value)) return;
  const message = `${value} comes from Kubernetes, for a Service named "http"; set HTTP_PORT in the pod, or enableServiceLinks: false`;
  for (const [index, problem] of settings.problems.entries()) {
    if (problem.variable === 'HTTP_PORT') settings.problems[index] = { variable: 'HTTP_PORT', message };
  }
}

function checkLimits(settings: Settings): void {
  const { MAX_EVENT_BYTES: event, MAX_IN_FLIGHT_BYTES: inFlight } = settings.values;
  if (event <= inFlight) return;
  const message = `${event} is more than MAX_IN_FLIGHT_BYTES (${inFlight}): such an event could never be sent`;
  settings.problems.push({ variable: 'MAX_EVENT_BYTES', message });
}

/** https://kafka.apache.org: topic names are 1 to 249 of these characters, and neither "." nor "..". */
function checkTopic(settings: Settings): void {
  const { BROKER: broker, ROUTE_TOPIC: topic } = settings.values;
  if (broker !== 'kafka') return;
  const { columns, literals } = parseTemplate(topic);
  const constant = literals.join('');
  const isLegal = /^[\w.-]*$/u.test(constant) && constant.length <= 249;
  const isComplete = columns.length > 0 || !['', '.', '..'].includes(constant);
  if (isLegal && isComplete) return;
  const message = `expected a legal Kafka topic: 1 to 249 letters, digits, ".", "_" and "-", got ${JSON.stringify(topic)}`;
  settings.problems.push({ variable: 'ROUTE_TOPIC', message });
}

/** Without a slot only the row itself can tell that it was delivered. */
const DELETED_AT_ONCE = { auto: undefined, yes: true, no: false } as const;

function checkSource(settings: Settings): void {
  const { SOURCE: source, CLEANUP: cleanup, DELETED_AT_ONCE: deleted } = settings.values;
  if (source === 'polling' && deleted === 'yes') {
    const message =
      'SOURCE=polling never sees a row that is deleted at once; expected SOURCE=streaming or auto';
    settings.problems.push({ variable: 'DELETED_AT_ONCE', message });
  }
  if (source !== 'polling' || cleanup !== 'none') return;
  const message =
    'none leaves delivered rows as they are, and SOURCE=polling could not tell them from others; expected delete or mark';
  settings.problems.push({ variable: 'CLEANUP', message });
}

/** Only marked rows say when they were delivered. */
function checkRetention(settings: Settings): void {
  const { MARK_RETENTION: retention, CLEANUP: cleanup } = settings.values;
  if (retention === undefined || cleanup === 'mark') return;
  const message = `only with CLEANUP=mark, got CLEANUP=${cleanup}`;
  settings.problems.push({ variable: 'MARK_RETENTION', message });
}

function throwProblems(settings: Settings): void {
  if (settings.problems.length > 0) throw new ConfigError(settings.problems);
}
