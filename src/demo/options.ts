import { UsageError } from '../errors/errors.ts';
import { nearest } from '../config/nearest.ts';

export type DemoBroker = 'stdout' | 'kafka' | 'rabbitmq';

export interface DemoOptions {
  readonly broker: DemoBroker;
  /** Kafka: host:port, comma-separated; RabbitMQ: amqp URL. `undefined`: from the environment, or one is started. */
  readonly brokerUrl: string | undefined;
  /** Committed events after which the demo ends by itself; `undefined`: Ctrl-C ends it. */
  readonly events: number | undefined;
  /** Committed events a second. */
  readonly rate: number;
}

const BROKERS: readonly DemoBroker[] = ['stdout', 'kafka', 'rabbitmq'];
/** Slow enough to be read. */
const DEFAULT_RATE = 8;
const MAX_RATE = 100_000;

/** @param values option name without dashes → value. Throws UsageError. */
export function demoOptions(values: Readonly<Record<string, string | boolean | undefined>>): DemoOptions {
  const broker = brokerOf(values['broker']);
  const brokerUrl = typeof values['broker-url'] === 'string' ? values['broker-url'] : undefined;
  if (brokerUrl !== undefined && broker === 'stdout')
    throw new UsageError('--broker-url needs --broker kafka or --broker rabbitmq');
  return {
    broker,
    brokerUrl,
    events: values['events'] === undefined ? undefined : wholeNumber('--events', values['events'], 2 ** 31),
    rate: values['rate'] === undefined ? DEFAULT_RATE : wholeNumber('--rate', values['rate'], MAX_RATE),
  };
}

function brokerOf(value: string | boolean | undefined): DemoBroker {
  if (value === undefined) return 'stdout';
  const broker = BROKERS.find((known) => known === value);
  if (broker !== undefined) return broker;
  throw new UsageError(
    `--broker: expected ${BROKERS.join(', ')}; did you mean "${nearest(String(value), BROKERS)}"?`,
  );
}

function wholeNumber(option: string, value: string | boolean, max: number): number {
  const number = /^\d+$/u.test(String(value)) ? Number(value) : Number.NaN;
  if (number >= 1 && number <= max) return number;
  throw new UsageError(`${option}: expected a whole number from 1 to ${max}, got "${value}"`);
}
