import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import type { Outcome, Publisher, PublisherEvents } from '../../src/pipeline/publish/publisher.ts';
import { Driver, makeMessage } from './publisher-driver.ts';
import { until } from './until.ts';

/** A message as a client that knows nothing of the relay reads it from the broker. */
export interface Received {
  readonly id: string;
  /** What the broker carries of it; undefined: it can't carry it. */
  readonly key?: string | null;
  readonly type?: string;
  readonly contentType?: string;
  readonly timestampMs?: number;
  /** All headers; those of the relay itself are ignored. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: Buffer | null;
}

/** A place to publish to, of its own for every test. */
export interface Subject {
  readonly destination: string;
  /** By way of `network`, when there is one. */
  create(events: PublisherEvents): Publisher;
  /** Everything that the broker holds there, in its order; duplicates included. */
  received(): Promise<Received[]>;
  /** What can happen on the way to the broker. */
  readonly network?: {
    cut(): void;
    blackHole(): void;
    heal(): void;
    /** Open connections of the publisher. */
    connections(): number;
  };
  /** Kills the broker without warning, and brings it back. */
  readonly broker?: { kill(): Promise<void>; start(): Promise<void> };
  remove(): Promise<void>;
}

/** What differs from broker to broker. A promise that a broker can't give has no test, instead of a skipped one. */
export interface ContractHarness {
  subject(): Promise<Subject>;
  /** A destination that does not exist, and stays so. */
  readonly missingDestination?: string;
  /** Bytes of a body that the broker, but not the publisher, finds too large. */
  readonly tooLargeBytes?: number;
  /** Bytes of a body that is large and must pass. */
  readonly largeBytes?: number;
  /** The subject has `network`. */
  readonly hasNetwork?: boolean;
  /** The subject has `broker`. */
  readonly canKill?: boolean;
  /** The broker keeps a NULL payload apart from an empty one. */
  readonly keepsNull?: boolean;
  /** Longest time after which a silent broker is given up by the publisher made by `create`, milliseconds. */
  readonly answerDeadlineMs?: number;
  /** Messages of the tests that send many. */
  readonly many?: number;
}

type Run = (subject: Subject, driver: Driver) => Promise<void>;

/** The contract of `Publisher`, one test a promise. */
export function publisherContract(name: string, harness: ContractHarness): void {
  const define = (title: string, run: Run): void => {
    test(`${name}: ${title}`, { timeout: 180_000 }, async () => await withDriver(harness, run));
  };
  define(
    'P1 every message gets one outcome, and a durable one can be read by others',
    oneOutcomeEach(harness),
  );
  define('P2 bytes, keys and headers arrive as given', exactBytes(harness));
  define('P3 the order of every key is kept, from many keys at once', orderPerKey(harness));
  define('P7 what was published is let go', memoryStaysFlat(harness));
  test(
    `${name}: close is idempotent, and leaves no socket and no timer`,
    { timeout: 60_000 },
    async () => await closeLeavesNothing(harness),
  );
  if (harness.missingDestination !== undefined) {
    define('P10 a missing destination is refused, its neighbours are durable', missingDestination(harness));
  }
  if (harness.tooLargeBytes !== undefined) {
    define('P10 a message too large is refused for good, its neighbours are durable', tooLarge(harness));
  }
  if (harness.hasNetwork === true) networkPromises(define, harness);
  if (harness.canKill === true)
    define('P1 the broker is killed under load: nothing is lost', brokerKilled(harness));
}

function networkPromises(define: (title: string, run: Run) => void, harness: ContractHarness): void {
  define(
    'P1 P3 the connection is cut again and again: nothing is lost, first deliveries in order',
    cutUnderLoad(harness),
  );
  define(
    'P1 a silent network makes outcomes unknown, and the publisher comes back by itself',
    blackHole(harness),
  );
  define('close reports what is outstanding as unknown, within its deadline', closeInSilence());
}

async function withDriver(harness: ContractHarness, run: Run): Promise<void> {
  const subject = await harness.subject();
  const driver = new Driver((events) => subject.create(events));
  try {
    await driver.publisher.connect(AbortSignal.timeout(30_000));
    await run(subject, driver);
    assert.deepEqual(driver.breaches, []);
    assert.deepEqual(driver.fatal, []);
  } finally {
    driver.stop();
    subject.network?.heal();
    await driver.publisher.close(5000);
    await subject.remove();
  }
}

function series(subject: Subject, count: number, options: { keys: number; prefix?: string }): Message[] {
  const { keys, prefix = '' } = options;
  return Array.from({ length: count }, (_, i) => {
    const body = Buffer.from(JSON.stringify({ n: Math.floor(i / keys), pad: 'x'.repeat(i % 400) }));
    return makeMessage({
      destination: subject.destination,
      id: `${prefix}${i}`,
      key: `key-${i % keys}`,
      body,
    });
  });
}

async function untilFinal(driver: Driver, messages: readonly Message[], timeoutMs = 60_000): Promise<void> {
  const missing = (): number => messages.filter((message) => !driver.final.has(message)).length;
  await until(() => missing() === 0, { timeoutMs, what: 'an outcome for every message' });
}

function assertAllDurable(driver: Driver, messages: readonly Message[]): void {
  const others = driver.outcomes(messages).filter((outcome) => outcome?.kind !== 'durable');
  assert.deepEqual(others, []);
}

/** Each message at least once; exactly once when nothing was unknown. First deliveries of a key in their order. */
async function assertArrived(subject: Subject, driver: Driver, messages: readonly Message[]): Promise<void> {
  const received = await subject.received();
  const first = [...new Set(received.map(({ id }) => id))];
  assert.equal(first.length, messages.length, 'every message arrived');
  if (driver.unknowns.length === 0) assert.equal(received.length, messages.length, 'none arrived twice');
  const keyOf = new Map(messages.map((message) => [message.id, message.key]));
  const byKey = (ids: readonly string[]): Record<string, string[]> =>
    Object.groupBy(ids, (id) => keyOf.get(id) ?? '') as Record<string, string[]>;
  const arrived = byKey(first);
  for (const [key, sent] of Object.entries(byKey(messages.map(({ id }) => id))))
    assert.deepEqual(arrived[key], sent);
}

const oneOutcomeEach =
  (_harness: ContractHarness): Run =>
  async (subject, driver) => {
    const messages = series(subject, 500, { keys: 20 });
    driver.send(messages);
    await untilFinal(driver, messages);
    assertAllDurable(driver, messages);
    await assertArrived(subject, driver, messages);
  };

const ODD_BODIES: readonly Buffer[] = [
  Buffer.alloc(0),
  Buffer.from([0, 1, 0xff, 0xfe, 0x80, 10, 13, 0]),
  Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
  Buffer.from('{"n":9007199254740993, "n": 1 , "é":"\u{1f600}"}'),
  Buffer.alloc(63, 'a'),
  Buffer.alloc(64, 'b'),
  Buffer.alloc(8191, 'c'),
  Buffer.alloc(8193, 'd'),
];

function oddMessages(harness: ContractHarness, destination: string): Message[] {
  const bodies: (Buffer | null)[] = [...ODD_BODIES];
  if (harness.keepsNull === true) bodies.push(null);
  if (harness.largeBytes !== undefined) bodies.push(Buffer.alloc(harness.largeBytes, 7));
  const messages = bodies.map((body, i) =>
    makeMessage({ destination, id: `body-${i}`, key: 'bodies', body }),
  );
  const headers = { plain: 'text', ключ: 'значение \u{1f600}', empty: '', long: 'y'.repeat(5000) };
  return [
    ...messages,
    makeMessage({
      destination,
      id: 'headers',
      key: 'clé-\u{1f511}',
      headers,
      contentType: 'text/plain; charset=utf-8',
    }),
    makeMessage({
      destination,
      id: 'ид-\u{1f600}',
      key: 'k'.repeat(200),
      type: 'Тип',
      timestampMs: Math.floor(Date.now() / 1000) * 1000 - 1,
    }),
  ];
}

const exactBytes =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const messages = oddMessages(harness, subject.destination);
    driver.send(messages);
    await untilFinal(driver, messages);
    assertAllDurable(driver, messages);
    const received = new Map((await subject.received()).map((one) => [one.id, one]));
    for (const message of messages) assertSame(received.get(message.id), message);
  };

function assertSame(received: Received | undefined, message: Message): void {
  assert.ok(received !== undefined, `${message.id} arrived`);
  assert.deepEqual(received.body, message.body, `body of ${message.id}`);
  for (const part of ['key', 'type', 'contentType', 'timestampMs'] as const) {
    if (received[part] !== undefined) assert.equal(received[part], message[part], `${part} of ${message.id}`);
  }
  for (const [header, value] of Object.entries(message.headers ?? {})) {
    if (received.headers !== undefined)
      assert.equal(received.headers[header], value, `header of ${message.id}`);
  }
}

const orderPerKey =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const messages = series(subject, harness.many ?? 5000, { keys: 50 });
    // In portions, as a source would hand them over: most wait while others are in flight.
    for (let i = 0; i < messages.length; i += 100) {
      driver.send(messages.slice(i, i + 100));
      await new Promise(setImmediate);
    }
    await untilFinal(driver, messages);
    assertAllDurable(driver, messages);
    await assertArrived(subject, driver, messages);
  };

const missingDestination =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const good = series(subject, 20, { keys: 5 });
    const destination = harness.missingDestination as string;
    const lost = makeMessage({ destination, id: 'nowhere', key: 'key-1' });
    driver.send([...good.slice(0, 10), lost, ...good.slice(10)]);
    await untilFinal(driver, [...good, lost]);
    assertAllDurable(driver, good);
    const outcome = rejection(driver.final.get(lost));
    assert.equal(outcome.permanent, false);
    assert.equal(outcome.missingDestination, true);
    assert.equal(outcome.scope, 'event');
    assert.ok(outcome.reason.includes(destination), outcome.reason);
    await assertArrived(subject, driver, good);
  };

const tooLarge =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const { destination } = subject;
    const good = series(subject, 40, { keys: 4 });
    const body = Buffer.alloc(harness.tooLargeBytes as number, 1);
    const huge = makeMessage({ destination, id: 'huge', key: 'key-1', body });
    driver.send([...good.slice(0, 20), huge, ...good.slice(20)]);
    await untilFinal(driver, [...good, huge]);
    assertAllDurable(driver, good);
    const outcome = rejection(driver.final.get(huge));
    assert.equal(outcome.permanent, true);
    assert.match(outcome.reason, /\d/, 'the reason has figures');
    await assertArrived(subject, driver, good);
  };

function rejection(outcome: Outcome | undefined): Extract<Outcome, { kind: 'rejected' }> {
  assert.ok(outcome?.kind === 'rejected', `rejected, not ${JSON.stringify(outcome)}`);
  return outcome;
}

const cutUnderLoad =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const messages = series(subject, harness.many ?? 5000, { keys: 50 });
    const portion = Math.ceil(messages.length / 10);
    for (let i = 0; i < messages.length; i += portion) {
      driver.send(messages.slice(i, i + portion));
      // While some are durable and some in flight.
      await until(() => driver.final.size > i, {
        intervalMs: 0,
        timeoutMs: 30_000,
        what: 'the first of a portion',
      });
      subject.network?.cut();
    }
    await untilFinal(driver, messages);
    assertAllDurable(driver, messages);
    await assertArrived(subject, driver, messages);
    assert.ok(
      driver.connections.includes(false) || driver.unknowns.length === 0,
      'a lost connection was reported',
    );
  };

const blackHole =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const before = series(subject, 100, { keys: 10, prefix: 'before-' });
    driver.send(before);
    await untilFinal(driver, before);
    const unknowns = driver.unknowns.length;
    subject.network?.blackHole();
    const during = series(subject, 100, { keys: 10, prefix: 'during-' });
    driver.send(during);
    const timeoutMs = (harness.answerDeadlineMs ?? 10_000) + 20_000;
    await until(() => driver.connections.at(-1) === false, { timeoutMs, what: 'the silence noticed' });
    assert.ok(driver.unknowns.length > unknowns, 'what was outstanding is unknown');
    assert.equal(driver.publisher.room(), 0, 'no room without a connection');
    const rooms = driver.rooms;
    subject.network?.heal();
    await untilFinal(driver, during);
    assertAllDurable(driver, during);
    assert.ok(driver.rooms > rooms, 'onRoom was called');
    assert.equal(driver.connections.at(-1), true);
    await assertArrived(subject, driver, [...before, ...during]);
  };

const brokerKilled =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const messages = series(subject, harness.many ?? 5000, { keys: 50 });
    driver.send(messages.slice(0, messages.length / 2));
    await until(() => driver.final.size > 0, { intervalMs: 0, timeoutMs: 30_000, what: 'the first outcome' });
    await subject.broker?.kill();
    driver.send(messages.slice(messages.length / 2));
    await until(() => driver.connections.at(-1) === false, { what: 'the loss of the broker noticed' });
    assert.equal(driver.publisher.room(), 0, 'no room without a broker');
    await subject.broker?.start();
    await untilFinal(driver, messages);
    assertAllDurable(driver, messages);
    await assertArrived(subject, driver, messages);
  };

const closeInSilence = (): Run => async (subject, driver) => {
  const messages = series(subject, 50, { keys: 5 });
  subject.network?.blackHole();
  driver.send(messages);
  driver.stop();
  const started = performance.now();
  await driver.publisher.close(300);
  const took = performance.now() - started;
  assert.ok(took < 3000, `closed in ${took} ms`);
  assert.ok(driver.unknowns.length > 0, 'what was outstanding is unknown');
  assert.equal(driver.publisher.room(), 0);
};

async function closeLeavesNothing(harness: ContractHarness): Promise<void> {
  const subject = await harness.subject();
  try {
    const before = resources();
    const driver = new Driver((events) => subject.create(events));
    await driver.publisher.connect(AbortSignal.timeout(30_000));
    const messages = series(subject, 100, { keys: 5 });
    driver.send(messages);
    await untilFinal(driver, messages);
    driver.stop();
    await Promise.all([driver.publisher.close(5000), driver.publisher.close(5000)]);
    await driver.publisher.close(0);
    await until(() => resources() <= before, { what: `at most ${before} open handles, as before` });
    if (subject.network !== undefined) {
      await until(() => subject.network?.connections() === 0, {
        what: 'no connection left at the other end',
      });
    }
  } finally {
    await subject.remove();
  }
}

/** Sockets and timers that would keep the process alive; both ends of a proxy in this process count. */
function resources(): number {
  const kinds = new Set(['TCPSocketWrap', 'TLSSocketWrap', 'PipeWrap', 'Timeout']);
  return process.getActiveResourcesInfo().filter((kind) => kinds.has(kind)).length;
}

const memoryStaysFlat =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const round = async (prefix: string): Promise<void> => {
      const messages = series(subject, (harness.many ?? 5000) / 5, { keys: 50, prefix });
      driver.send(messages);
      await untilFinal(driver, messages);
      driver.final.clear();
    };
    for (let i = 0; i < 5; i++) await round(`warm-${i}-`);
    const before = await heapBytes();
    for (let i = 0; i < 20; i++) await round(`${i}-`);
    const grown = (await heapBytes()) - before;
    assert.ok(grown < 4 * 1024 * 1024, `grew by ${grown} bytes`);
  };

async function heapBytes(): Promise<number> {
  const { setFlagsFromString } = await import('node:v8');
  const { runInNewContext } = await import('node:vm');
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (let i = 0; i < 3; i++) {
    collect();
    await new Promise(setImmediate);
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
