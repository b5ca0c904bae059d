import type { OnProgress } from './services/install.ts';
import type { DemoBroker, DemoOptions } from './options.ts';

/** A broker that is there, or a way to start one. */
export interface BrokerPlan {
  readonly kind: DemoBroker;
  /** `undefined`: it has to be started. Empty: the environment names a file with it. */
  readonly givenUrl: string | undefined;
  /** Settings of the relay for a given broker: TLS, SASL and whatever else the environment says about it. */
  readonly settings: Readonly<NodeJS.ProcessEnv>;
}

export interface RunningBroker {
  readonly url: string;
  /** Ends it if the demo started it. */
  readonly remove: () => Promise<void>;
}

const URL_VARIABLES = { kafka: 'KAFKA_BROKERS', rabbitmq: 'RABBITMQ_URL' } as const;

export function planBroker({ broker, brokerUrl }: DemoOptions, env: NodeJS.ProcessEnv): BrokerPlan {
  if (broker === 'stdout') return { kind: broker, givenUrl: '', settings: {} };
  const variable = URL_VARIABLES[broker];
  const inFile = (env[`${variable}_FILE`] ?? '') === '' ? undefined : '';
  const givenUrl = brokerUrl ?? (env[variable] || inFile);
  const prefix = `${broker.toUpperCase()}_`;
  const named = Object.entries(env).filter(([name]) => name.startsWith(prefix));
  const settings: NodeJS.ProcessEnv = givenUrl === undefined ? {} : Object.fromEntries(named);
  // Both would be two answers to one question.
  if (brokerUrl !== undefined) delete settings[`${variable}_FILE`];
  return { kind: broker, givenUrl, settings };
}

/** Throws with what to install when there is none to start. */
export async function startBroker(plan: BrokerPlan, onProgress: OnProgress): Promise<RunningBroker> {
  if (plan.givenUrl !== undefined) return { url: plan.givenUrl, remove: async () => await Promise.resolve() };
  if (plan.kind === 'kafka') {
    const { startKafka } = await import('./services/kafka.ts');
    const kafka = await startKafka({ onProgress });
    return { url: kafka.brokers.join(','), remove: async () => await kafka.remove() };
  }
  const { startRabbitmq } = await import('./services/rabbitmq.ts');
  const rabbitmq = await startRabbitmq({ onProgress });
  return { url: rabbitmq.url, remove: async () => await rabbitmq.remove() };
}

/** The relay's whole environment: the demo's own, and for a given broker what the user's says about it. */
export function relayEnvironment(options: {
  readonly plan: BrokerPlan;
  readonly brokerUrl: string;
  readonly databaseUrl: string;
  readonly httpPort: number;
  /** Topic or exchange. */
  readonly channel: string;
  readonly logLevel: string | undefined;
}): NodeJS.ProcessEnv {
  const { plan, brokerUrl, databaseUrl, httpPort, channel, logLevel } = options;
  return {
    ...plan.settings,
    DATABASE_URL: databaseUrl,
    BROKER: plan.kind,
    ...(plan.kind === 'kafka' && { KAFKA_BROKERS: brokerUrl }),
    ...(plan.kind === 'rabbitmq' && {
      RABBITMQ_URL: brokerUrl,
      RABBITMQ_EXCHANGE: channel,
      RABBITMQ_EXCHANGE_TYPE: 'topic',
      RABBITMQ_ROUTING_KEY: '',
      // The consumer makes it, in a way that it disappears by itself.
      RABBITMQ_DECLARE: 'false',
    }),
    ROUTE_TOPIC: channel,
    HTTP_HOST: '127.0.0.1',
    HTTP_PORT: String(httpPort),
    // What goes well is on the screen already.
    LOG_LEVEL: logLevel || 'warn',
    LOG_FORMAT: 'pretty',
  };
}
