import { fault, rounds, type Plant } from './plant.ts';

const ACKNOWLEDGE_ON_RECEIPT: Plant = {
  name: 'acknowledge-on-receipt',
  describes:
    'A transaction counts as settled when it was received: progress row and slot are moved over events that no broker has.',
  broker: 'rabbitmq',
  edits: [
    {
      file: 'pipeline/settle/watermark.ts',
      search: 'if (transaction.endLsn === undefined || transaction.outstanding > 0)',
      replace: 'if (transaction.endLsn === undefined)',
    },
  ],
  schedule: rounds({
    broker: 'rabbitmq',
    env: { RABBITMQ_WINDOW: '50' },
    load: { bursts: [{ atMs: 1_200, events: 1_000 }], keys: 30 },
    faults: [fault('broker-slow', 1_000, 2_500, { amount: 0.7 }), fault('relay-kill', 2_500, 0)],
  }),
};

const LSN_PLUS_ONE: Plant = {
  name: 'lsn-plus-one',
  describes:
    'The slot is told one byte more than was settled. Without the rule that a slot which confirms more than the progress row is not trusted: else every start would deliver from the table.',
  broker: 'kafka',
  edits: [
    {
      file: 'pipeline/capture/streaming/stream.ts',
      search: 'status.writeBigUInt64BE(this.acknowledged, 9);',
      replace: 'status.writeBigUInt64BE(this.acknowledged + 1n, 9);',
    },
    {
      file: 'pipeline/capture/start-decision.ts',
      search: 'slot.confirmedLsn > progress.durableLsn)',
      replace: 'slot.confirmedLsn > progress.durableLsn + 1n)',
    },
  ],
  // One broker is out of reach when a crowd commits: what is settled ends right before the first event that it leads.
  schedule: rounds({
    broker: 'kafka',
    lifeMs: 7_000,
    load: {
      rate: 20,
      crowds: [500, 2_500, 4_500].map((atMs) => ({ atMs, transactions: 15 })),
    },
    faults: [500, 2_500, 4_500].flatMap((atMs, target) => [
      fault('broker-black-hole', atMs + 270, 1_400, { target, amount: 0.9 }),
      // Or what was on its way would arrive after all.
      fault('broker-reset', atMs + 600, 0),
      fault('relay-kill', atMs + 900, 0),
    ]),
  }),
};

const RETURN_IGNORED: Plant = {
  name: 'return-ignored',
  describes:
    'A message that RabbitMQ returns as unroutable counts as delivered, because it is confirmed as well.',
  broker: 'rabbitmq',
  edits: [
    {
      file: 'pipeline/publish/rabbitmq/confirm-window.ts',
      search: 'this.events.settle(entry, entry.verdict ?? outcome)',
      replace: 'this.events.settle(entry, outcome)',
    },
  ],
  schedule: rounds({ broker: 'rabbitmq', kinds: ['binding-removed', 'relay-kill'] }),
};

const MISSING_PARTITION: Plant = {
  name: 'missing-partition',
  describes:
    'An answer of Kafka that leaves a partition out counts as well for it. Brokers answer for every partition, so the answers of one that leads it no longer are left out as well, as a client does that means to send them again.',
  broker: 'kafka',
  edits: [
    {
      file: 'pipeline/publish/kafka/outcome.ts',
      search: 'if (errorCode === 0) return DURABLE;',
      replace: 'if (errorCode === 0 || errorCode === undefined) return DURABLE;',
    },
    {
      file: 'pipeline/publish/kafka/sender.ts',
      search: 'for (const { partition, errorCode } of partitions) codes.set(',
      replace: 'for (const { partition, errorCode } of partitions) if (errorCode !== 6) codes.set(',
    },
  ],
  schedule: rounds({
    broker: 'kafka',
    faults: [0, 1, 2].map((target) => fault('leader-moved', 700 + target * 1_000, 700, { target })),
  }),
};

const HANDOVER_SKIPS: Plant = {
  name: 'handover-skips',
  describes:
    'From the table to the stream without the pass over what the slot was too late for and polling had not seen yet.',
  broker: 'rabbitmq',
  edits: [
    {
      file: 'session.ts',
      search: 'async () => await this.deliverTable(client, begun)',
      replace: 'async () => await Promise.resolve()',
    },
  ],
  schedule: rounds({
    broker: 'rabbitmq',
    lifeMs: 5_000,
    load: { rate: 1_000, keys: 5 },
    faults: [1_000, 2_500, 4_000].map((atMs) => fault('slot-dropped', atMs, 0)),
  }),
};

const CURSOR_POLLING: Plant = {
  name: 'cursor-polling',
  describes: 'Polling asks for numbers above the last one it has seen, instead of for what is undelivered.',
  broker: 'rabbitmq',
  edits: [
    {
      file: 'pipeline/capture/polling/table-poll.ts',
      search: 'const from = bound.next(performance.now());',
      replace: 'const from = this.cursor;',
    },
    {
      file: 'pipeline/capture/polling/table-poll.ts',
      search: 'bound.looked({ ...answer, from, lowest: fresh[0]?.seq, endedMs: performance.now() });',
      replace: 'if (fresh.length > 0) this.cursor = fresh.at(-1).seq + 1;',
    },
  ],
  schedule: rounds({
    broker: 'rabbitmq',
    env: { SOURCE: 'polling' },
    kinds: ['broker-slow', 'broker-reset'],
  }),
};

const LEASE_UNCHECKED: Plant = {
  name: 'lease-unchecked',
  describes:
    'Whoever led once sends whatever it has in hand until it is told that another leads; no clock is asked.',
  broker: 'rabbitmq',
  edits: [
    {
      file: 'lifecycle/lease.ts',
      search:
        'return now.monotonicMs - this.sent.monotonicMs < LEASE_MS && wallAgeMs < LEASE_MS && wallAgeMs >= 0;',
      replace: 'return wallAgeMs !== undefined;',
    },
  ],
  // Stopped with a burst in hand, before its question for the lease, and woken up when the other relay has delivered it.
  schedule: rounds({
    broker: 'rabbitmq',
    relays: 2,
    pods: true,
    lifeMs: 7_500,
    env: { RABBITMQ_WINDOW: '1000', MAX_IN_FLIGHT_EVENTS: '10000', SOURCE: 'streaming' },
    load: { writers: 1, rate: 0.01, keys: 100_000, hot: 0, bursts: [{ atMs: 1_500, events: 1_500 }] },
    faults: [fault('relay-stop', 2_000, 5_000)],
  }),
  // Nothing else is under way then.
  options: { maxDuplicates: 20, stopAt: 'after-receive-before-publish:2' },
};

const ATTEMPTS_RESET: Plant = {
  name: 'attempts-reset',
  describes:
    'Each refusal is the first one: neither attempts nor the time without a destination are added up.',
  broker: 'rabbitmq',
  edits: [
    {
      file: 'pipeline/publish/lanes.ts',
      search: 'delivery.attempts++;',
      replace: 'delivery.attempts = 1;',
    },
    {
      file: 'pipeline/publish/missing-targets.ts',
      search: 'return nowMs - known.sinceMs;',
      replace: 'return 0;',
    },
  ],
  schedule: rounds({
    broker: 'rabbitmq',
    env: { TOPIC_GRACE_MS: '2000' },
    load: { nowhere: [{ atMs: 500 }] },
    kinds: ['broker-slow'],
  }),
};

const REPARTITION_ON_RETRY: Plant = {
  name: 'repartition-on-retry',
  describes: 'What is sent again goes to the next partition.',
  broker: 'kafka',
  edits: [
    {
      file: 'pipeline/publish/kafka/grouping.ts',
      search: '/** Topic → messages by partition + 1. */',
      replace: `const dealt = new WeakMap();
function earlierDeals(message) {
  const times = dealt.get(message) ?? 0;
  dealt.set(message, times + 1);
  return times;
}`,
    },
    {
      file: 'pipeline/publish/kafka/grouping.ts',
      search: 'partitionFor(message, count) + 1;',
      replace: '((partitionFor(message, count) + earlierDeals(message)) % count) + 1;',
    },
  ],
  schedule: rounds({ broker: 'kafka', kinds: ['broker-reset', 'broker-torn', 'leader-moved'] }),
};

const OVERSIZE_DROPPED: Plant = {
  name: 'oversize-dropped',
  describes: 'An event beyond MAX_EVENT_BYTES is removed and not parked.',
  broker: 'rabbitmq',
  edits: [
    {
      file: 'pipeline/pipeline.ts',
      search:
        'this.settle([{ event, parked: { code, reason, attempts: 0, destination: null, key: null } }]);',
      replace: `this.settle([code === 'event-too-large' ? { event } : { event, parked: { code, reason, attempts: 0, destination: null, key: null } }]);`,
    },
  ],
  schedule: rounds({ broker: 'rabbitmq', kinds: ['relay-kill'], load: { poison: [{ atMs: 1_000 }] } }),
};

const PRINTED_AGAIN: Plant = {
  name: 'printed-again',
  describes: 'Payloads of JSON are parsed and printed again.',
  broker: 'rabbitmq',
  edits: [
    {
      file: 'pipeline/envelope/router.ts',
      search: 'const body = row.bytes(columns.payload) ?? null;',
      replace: `const stored = row.bytes(columns.payload) ?? null;
    const body = stored && Buffer.from(JSON.stringify(JSON.parse((stored.view?.() ?? stored).toString())));`,
    },
  ],
  schedule: rounds({ broker: 'rabbitmq', kinds: ['broker-reset'] }),
};

const POLLED_UNFLUSHED: Plant = {
  name: 'polled-unflushed',
  describes: 'What is polled is delivered before it is on disk; a crash of PostgreSQL takes it back.',
  broker: 'rabbitmq',
  edits: [
    {
      file: 'pipeline/capture/polling/table-poll.ts',
      search: 'if (ends.flushed >= inserted) break;',
      replace: 'break;',
    },
  ],
  // One writer, asynchronous, and a broker that answers late: other commits, the relay's own too, would flush the log.
  schedule: rounds({
    broker: 'rabbitmq',
    lifeMs: 8_000,
    env: { SOURCE: 'polling' },
    load: { writers: 1, rate: 5, savepoint: 0 },
    faults: [
      fault('broker-slow', 500, 7_400, { amount: 0.9 }),
      ...[2_000, 4_000, 6_000].map((atMs) => fault('postgres-crash', atMs, 0)),
    ],
  }),
};

const LAG_FROZEN: Plant = {
  name: 'lag-frozen',
  describes: 'The lag that is shown is always 0.',
  broker: 'kafka',
  edits: [
    {
      file: 'observe/monitor.ts',
      search: 'return lagSeconds({',
      replace: 'return 0 * lagSeconds({',
    },
  ],
  schedule: rounds({
    broker: 'kafka',
    lifeMs: 8_000,
    faults: [fault('broker-black-hole', 500, 7_500, { amount: 0 })],
  }),
};

/** The ten of every relay's history, and one for most other complaints of the checker; the rest has tests of its own. */
export const PLANTS: readonly Plant[] = [
  ACKNOWLEDGE_ON_RECEIPT,
  LSN_PLUS_ONE,
  RETURN_IGNORED,
  MISSING_PARTITION,
  HANDOVER_SKIPS,
  CURSOR_POLLING,
  LEASE_UNCHECKED,
  ATTEMPTS_RESET,
  REPARTITION_ON_RETRY,
  OVERSIZE_DROPPED,
  PRINTED_AGAIN,
  POLLED_UNFLUSHED,
  LAG_FROZEN,
];
