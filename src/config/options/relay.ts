import * as format from '../formats.ts';
import type { Option } from './option.ts';

const LATER_POLICY =
  'this release knows only "park" (the event goes to the dead letters, later events of its key flow on)';

/** Addresses, limits and operation. */
export const RELAY_OPTIONS = {
  ROUTE_TOPIC: {
    group: 'route',
    doc: "Template over the row's columns: Kafka's topic, RabbitMQ's exchange unless RABBITMQ_EXCHANGE is set. Its default names the column of OUTBOX_AGGREGATE_TYPE_COLUMN.",
    default: 'outbox.event.${aggregatetype}',
    format: format.template,
  },
  ROUTE_KEY: {
    group: 'route',
    doc: "Template of the ordering key: events with the same key arrive in commit order. Kafka's record key, RabbitMQ's routing key unless RABBITMQ_ROUTING_KEY is set. Its default is the column of OUTBOX_AGGREGATE_ID_COLUMN.",
    default: '${aggregateid}',
    format: format.template,
  },

  DEAD_LETTER_POLICY: {
    group: 'limits',
    doc: 'What happens to an event that the broker refuses for good: park moves it to the dead letters.',
    default: 'park',
    format: format.oneOf(['park'], { 'park-key': LATER_POLICY, block: LATER_POLICY }),
  },
  MAX_ATTEMPTS: {
    group: 'limits',
    doc: 'Refusals of one event before it is parked; an outage of the broker never counts.',
    default: '5',
    format: format.integer(1, 1000),
  },
  MAX_IN_FLIGHT_BYTES: {
    group: 'limits',
    doc: 'Events held in memory, bytes.',
    default: '64MiB',
    format: format.bytes(64 * 1024),
  },
  MAX_IN_FLIGHT_EVENTS: {
    group: 'limits',
    doc: 'Events held in memory, number; also the bound of duplicates after a crash.',
    default: '5000',
    format: format.integer(1, 10_000_000),
  },
  MAX_EVENT_BYTES: {
    group: 'limits',
    doc: 'A larger event is parked, bytes.',
    default: '16MiB',
    format: format.bytes(1024, 128 * 1024 ** 2),
  },
  TOPIC_GRACE_MS: {
    group: 'limits',
    doc: 'A missing topic or exchange is waited for so long before its events are parked, milliseconds.',
    default: '60000',
    format: format.milliseconds(0),
  },

  HTTP_HOST: {
    group: 'operation',
    doc: 'Address that /metrics, /status, /livez and /readyz are served on.',
    default: '0.0.0.0',
    format: format.text,
  },
  HTTP_PORT: {
    group: 'operation',
    doc: 'Port for them; 0 takes any free one.',
    default: '9464',
    format: format.integer(0, 65_535),
  },
  LOG_LEVEL: {
    group: 'operation',
    doc: 'debug, info, warn or error.',
    default: 'info',
    format: format.oneOf(['debug', 'info', 'warn', 'error']),
  },
  LOG_FORMAT: {
    group: 'operation',
    doc: 'json or pretty; without it pretty on a terminal, json elsewhere.',
    default: null,
    format: format.oneOf(['json', 'pretty']),
  },
  SHUTDOWN_TIMEOUT_MS: {
    group: 'operation',
    doc: 'Time for the drain after SIGTERM, milliseconds; below the 30 s after which Kubernetes kills.',
    default: '25000',
    format: format.milliseconds(0),
  },
} as const satisfies Record<string, Option>;
