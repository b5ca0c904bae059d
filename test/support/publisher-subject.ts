import assert from 'node:assert/strict';
import type { Message } from '../../src/pipeline/envelope/message.ts';
import type { Publisher, PublisherEvents } from '../../src/pipeline/publish/publisher.ts';
import { makeMessage, type Driver } from './publisher-driver.ts';
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

/** One promise of the contract, tried on a place to publish to. */
export type Run = (subject: Subject, driver: Driver) => Promise<void>;

export function series(
  subject: Subject,
  count: number,
  options: { keys: number; prefix?: string },
): Message[] {
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

export async function untilFinal(
  driver: Driver,
  messages: readonly Message[],
  timeoutMs = 60_000,
): Promise<void> {
  const missing = (): number => messages.filter((message) => !driver.final.has(message)).length;
  await until(() => missing() === 0, { timeoutMs, what: 'an outcome for every message' });
}

export function assertAllDurable(driver: Driver, messages: readonly Message[]): void {
  const others = driver.outcomes(messages).filter((outcome) => outcome?.kind !== 'durable');
  assert.deepEqual(others, []);
}

/** Each message at least once; exactly once when nothing was unknown. First deliveries of a key in their order. */
export async function assertArrived(
  subject: Subject,
  driver: Driver,
  messages: readonly Message[],
): Promise<void> {
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
