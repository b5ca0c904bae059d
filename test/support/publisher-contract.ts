import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import type { Outcome } from '../../src/pipeline/publish/publisher.ts';
import { Driver, makeMessage } from './publisher-driver.ts';
import { blackHole, brokerKilled, closeInSilence, cutUnderLoad } from './publisher-faults.ts';
import { assertAllDurable, assertArrived, series, untilFinal } from './publisher-subject.ts';
import type { ContractHarness, Received, Run } from './publisher-subject.ts';
import { until } from './until.ts';

export type { ContractHarness, Received, Subject } from './publisher-subject.ts';

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
  define('P8 nothing is written after the lease has ended', leaseEnded(harness));
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
  define('connecting twice opens nothing', connectTwice());
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

const oneOutcomeEach =
  (_harness: ContractHarness): Run =>
  async (subject, driver) => {
    const messages = series(subject, 500, { keys: 20 });
    driver.send(messages);
    await untilFinal(driver, messages);
    assertAllDurable(driver, messages);
    await assertArrived(subject, driver, messages);
  };

/** With a network the destination is asked for first: what waits for that must not be written either. */
const leaseEnded =
  (harness: ContractHarness): Run =>
  async (subject, driver) => {
    const waiting = series(subject, 50, { keys: 50, prefix: 'waiting-' });
    const late = series(subject, 50, { keys: 50, prefix: 'late-' });
    driver.send(waiting);
    driver.leads = false;
    driver.send(late);
    await until(() => driver.unknowns.length >= 100, { what: 'them refused' });
    const codes = driver.unknowns.map((outcome) => outcome.kind === 'unknown' && outcome.code);
    assert.deepEqual([...new Set(codes)], ['lease-ended']);
    const written = [...driver.final.keys()].map(({ id }) => id);
    if (harness.hasNetwork === true) assert.deepEqual(written, []);
    assert.deepEqual((await subject.received()).map(({ id }) => id).toSorted(), written.toSorted());
    assert.ok(late.every((message) => !driver.final.has(message)));
    driver.leads = true;
    const all = [...waiting, ...late];
    await untilFinal(driver, all);
    assertAllDurable(driver, all);
    assert.equal((await subject.received()).length, all.length, 'none arrived twice');
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

const connectTwice = (): Run => async (subject, driver) => {
  const connections = (): number => subject.network?.connections() ?? 0;
  const connect = async (): Promise<void> => await driver.publisher.connect(AbortSignal.timeout(30_000));
  const sendSome = async (prefix: string): Promise<void> => {
    const messages = series(subject, 50, { keys: 5, prefix });
    driver.send(messages);
    await untilFinal(driver, messages);
    assertAllDurable(driver, messages);
  };
  await sendSome('before-');
  const open = connections();
  for (let i = 0; i < 3; i++) await connect();
  await Promise.all([connect(), connect()]);
  assert.equal(connections(), open, 'while connected');
  assert.deepEqual(driver.connections, [true]);
  subject.network?.cut();
  await until(() => driver.publisher.room() === 0, { intervalMs: 0, what: 'the loss noticed' });
  await Promise.all([connect(), connect()]);
  await sendSome('after-');
  await until(() => connections() === open, { what: `${open} connections, as before` });
};

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
