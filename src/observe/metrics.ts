import type { Mode } from '../lifecycle/mode.ts';
import { Counter, Gauge, Registry } from 'prom-client';
import { Distribution } from './distribution.ts';

/** Every metric, its labels and its help. The names are a contract: dashboards and alerts depend on them. */
const METRICS = {
  lagSeconds: gauge(
    'lag_seconds',
    'Age of the oldest committed event that is neither delivered nor parked, on the clock of the database.',
  ),
  lagBytes: gauge('lag_bytes', 'WAL between the position acknowledged to PostgreSQL and its end.'),
  pendingEvents: gauge(
    'pending_events',
    'Committed events in the outbox table that are neither delivered nor parked.',
  ),
  inFlightEvents: gauge('in_flight_events', 'Events read from PostgreSQL and not yet settled.'),
  inFlightBytes: gauge('in_flight_bytes', 'Memory that these events take.'),
  deadLetters: gauge('dead_letters', 'Events parked in the dead letters now.'),
  leader: gauge('leader', '1 while this process is the one that publishes.'),
  slotRetainedBytes: gauge('slot_retained_bytes', 'WAL that PostgreSQL keeps for the slot.'),
  lastDurableTimestampSeconds: gauge(
    'last_durable_timestamp_seconds',
    'When the broker last confirmed an event; 0: not yet.',
  ),
  mode: gauge('mode', '1 for the present mode, 0 for the others.', 'mode'),
  slotWalStatus: gauge(
    'slot_wal_status',
    '1 for the present wal_status of the slot, 0 for the others.',
    'status',
  ),
  buildInfo: gauge('build_info', 'Always 1; the version is the label.', 'version'),
  eventsPublished: counter(
    'events_published_total',
    'Events that the broker confirmed as durable.',
    'destination',
  ),
  publishFailures: counter(
    'publish_failures_total',
    'Sends that were not confirmed, by code; each is sent again or parked.',
    'code',
  ),
  eventsParked: counter('events_parked_total', 'Events moved to the dead letters, by code.', 'code'),
  orphans: counter('orphans_total', 'Rows that the stream never brought, delivered from the table.'),
  duplicatesSkipped: counter(
    'duplicates_skipped_total',
    'Events that came again and were known to be durable.',
  ),
  modeChanges: counter('mode_changes_total', 'Changes of mode.', 'from', 'to', 'reason'),
} as const;

/** Those that last; between them no gauge is 1. */
export const MODES = ['streaming', 'polling', 'standby', 'halted'] as const;

/** `missing`: there is no slot. The others are pg_replication_slots.wal_status. */
const WAL_STATUSES = ['reserved', 'extended', 'unreserved', 'lost', 'missing'] as const;
export type WalStatus = (typeof WAL_STATUSES)[number];

/** Fit for 0.5 ms … 60 s: a confirmed batch takes one to ten milliseconds, an outage of the broker minutes. */
const SECONDS = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** More values of one label become `other`: a template over the row's columns can make any number of topics. */
const MAX_LABEL_VALUES = 200;
const OTHER = 'other';

export interface Metrics {
  readonly lagSeconds: Gauge;
  readonly lagBytes: Gauge;
  readonly pendingEvents: Gauge;
  readonly inFlightEvents: Gauge;
  readonly inFlightBytes: Gauge;
  readonly deadLetters: Gauge;
  readonly leader: Gauge;
  readonly slotRetainedBytes: Gauge;
  readonly lastDurableTimestampSeconds: Gauge;
  readonly orphans: Counter;
  readonly duplicatesSkipped: Counter;
  /** Seconds from handing a message to the broker's client to its confirmation. */
  readonly publishDuration: Distribution;
  /** Seconds from the commit to the confirmation. */
  readonly deliveryDuration: Distribution;
  /** Cheap enough for every event. */
  published(destination: string, count: number): void;
  publishFailed(code: string, count: number): void;
  parked(code: string, count: number): void;
  /**
   * Sets the mode, and counts the change when it is one. `reason` comes from a small, fixed set.
   */
  setMode(mode: Mode, reason: string): void;
  /** `undefined`: not known. */
  setSlotWalStatus(status: WalStatus | undefined): void;
  /** Runs before every scrape, to fill gauges that change by themselves, such as the lag. Must be quick and not throw. */
  onScrape(fill: () => void): void;
  /** Exposition format 0.0.4. */
  text(): Promise<string>;
}

export const METRICS_CONTENT_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

/** A registry of its own, so that several relays fit into one process (tests). */
export function createMetrics(options: { readonly version: string }): Metrics {
  const registry = new Registry();
  const gaugeOf = (spec: Spec): Gauge => new Gauge({ ...spec, registers: [registry] });
  const counterOf = (spec: Spec): Counter => new Counter({ ...spec, registers: [registry] });
  const publishDuration = distribution(
    'publish_duration_seconds',
    'From handing an event to the client to its confirmation.',
  );
  const deliveryDuration = distribution(
    'delivery_duration_seconds',
    'From the commit of an event to its confirmation.',
  );
  const published = labelled(counterOf(METRICS.eventsPublished));
  const publishFailed = labelled(counterOf(METRICS.publishFailures));
  const parked = labelled(counterOf(METRICS.eventsParked));
  const fills: (() => void)[] = [published.flush, publishFailed.flush, parked.flush];
  gaugeOf(METRICS.buildInfo).set({ version: options.version }, 1);
  addProcessMetrics(registry);
  return {
    lagSeconds: gaugeOf(METRICS.lagSeconds),
    lagBytes: gaugeOf(METRICS.lagBytes),
    pendingEvents: gaugeOf(METRICS.pendingEvents),
    inFlightEvents: gaugeOf(METRICS.inFlightEvents),
    inFlightBytes: gaugeOf(METRICS.inFlightBytes),
    deadLetters: gaugeOf(METRICS.deadLetters),
    leader: gaugeOf(METRICS.leader),
    slotRetainedBytes: gaugeOf(METRICS.slotRetainedBytes),
    lastDurableTimestampSeconds: gaugeOf(METRICS.lastDurableTimestampSeconds),
    orphans: counterOf(METRICS.orphans),
    duplicatesSkipped: counterOf(METRICS.duplicatesSkipped),
    publishDuration,
    deliveryDuration,
    published: published.add,
    publishFailed: publishFailed.add,
    parked: parked.add,
    setMode: modeSetter(gaugeOf(METRICS.mode), counterOf(METRICS.modeChanges)),
    setSlotWalStatus: oneOf(gaugeOf(METRICS.slotWalStatus), 'status', WAL_STATUSES),
    onScrape: (fill) => void fills.push(fill),
    text: async () => {
      for (const fill of fills) fill();
      return `${await registry.metrics()}\n${publishDuration.text()}\n${deliveryDuration.text()}`;
    },
  };
}

interface Spec {
  readonly name: string;
  readonly help: string;
  readonly labelNames: readonly string[];
}

function gauge(name: string, help: string, ...labelNames: string[]): Spec {
  return { name: `outbox_relay_${name}`, help, labelNames };
}

function counter(name: string, help: string, ...labelNames: string[]): Spec {
  return { name: `outbox_relay_${name}`, help, labelNames };
}

function distribution(name: string, help: string): Distribution {
  return new Distribution({ name: `outbox_relay_${name}`, help, bounds: SECONDS });
}

/**
 * Adds to the counter of a label value: into a plain number, moved to the counter by `flush` before a scrape, since the
 * library's own increment costs half a microsecond.
 */
function labelled(metric: Counter): { add: (value: string, count: number) => void; flush: () => void } {
  const counts = new Map<string, number>();
  const add = (value: string, count: number): void => {
    const known = counts.get(value);
    if (known === undefined && counts.size >= MAX_LABEL_VALUES && value !== OTHER) add(OTHER, count);
    else counts.set(value, (known ?? 0) + count);
  };
  const flush = (): void => {
    for (const [value, count] of counts) {
      metric.labels(value).inc(count);
      // Kept, so that the number of values ever seen stays bounded.
      counts.set(value, 0);
    }
  };
  return { add, flush };
}

function oneOf<T extends string>(
  metric: Gauge,
  label: string,
  values: readonly T[],
): (present: T | undefined) => void {
  const set = (present: T | undefined): void => {
    for (const value of values) metric.set({ [label]: value }, value === present ? 1 : 0);
  };
  set(undefined);
  return set;
}

function modeSetter(metric: Gauge, changes: Counter): (mode: Mode, reason: string) => void {
  const set = oneOf(metric, 'mode', MODES);
  let present: Mode = 'starting';
  return (mode, reason) => {
    if (mode === present) return;
    changes.inc({ from: present, to: mode, reason });
    present = mode;
    set(MODES.find((lasting) => lasting === mode));
  };
}

/** The usual names. Not the library's whole set: its event-loop monitor alone wakes an idle process 100 times a second. */
function addProcessMetrics(registry: Registry): void {
  const registers = [registry];
  const started = new Gauge({
    name: 'process_start_time_seconds',
    help: 'Start of the process, Unix time.',
    registers,
  });
  started.set(Math.round(performance.timeOrigin) / 1000);
  const memory: Gauge = new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Resident memory.',
    registers,
    collect: () => memory.set(process.memoryUsage.rss()),
  });
  const cpu: Counter = new Counter({
    name: 'process_cpu_seconds_total',
    help: 'CPU time used, user and system.',
    registers,
    collect: () => {
      const { user, system } = process.cpuUsage();
      cpu.reset();
      cpu.inc((user + system) / 1e6);
    },
  });
}
