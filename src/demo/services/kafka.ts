import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Kafka, logLevel } from 'kafkajs';
import { makeCertificates } from './certificates.ts';
import type { Certificates } from './certificates.ts';
import { ServiceFolder } from './folder.ts';
import { run } from './install.ts';
import type { OnProgress } from './install.ts';
import { kafkaClassPath } from './kafka-install.ts';
import { brokerProperties, scramArguments } from './kafka-properties.ts';
import type { KafkaPorts, KafkaSecurity, KafkaUser } from './kafka-properties.ts';
import { freePorts } from './ports.ts';
import { accepts } from './probe.ts';
import { ServerProcess } from './server-process.ts';

const START_TIMEOUT_MS = 90_000;

export interface KafkaOptions {
  readonly brokers?: 1 | 3;
  /** Heap of each broker, MiB. */
  readonly heapMb?: number;
  /** Lines of server.properties, over the defaults. */
  readonly settings?: Readonly<Record<string, string>>;
  /** What clients have to speak; administration by `plaintextBrokers` always works. */
  readonly security?: KafkaSecurity;
  /** Known to PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. OAUTHBEARER takes any unsigned token. */
  readonly users?: readonly KafkaUser[];
  /** `required`: TLS clients have to show `certificates.client`. */
  readonly clientAuth?: 'none' | 'required';
  /** host:port that each broker tells its clients to connect to, for a proxy in between. Default: its listener. */
  readonly advertised?: readonly string[];
  readonly onProgress?: OnProgress;
}

export interface KafkaServer {
  /** host:port of every broker's listener with the security asked for. */
  readonly brokers: string[];
  /** host:port of every broker's listener without TLS and SASL. */
  readonly plaintextBrokers: string[];
  /** Given with `ssl` and `sasl_ssl`. */
  readonly certificates: Certificates | undefined;
  /** Everything of these brokers, removed by `remove()`. */
  readonly folder: string;
  /** Process ids of the running brokers, in the order of `brokers`. */
  pids(): number[];
  stop(signal?: NodeJS.Signals): Promise<void>;
  start(): Promise<void>;
  /** One broker of a cluster, by its index in `brokers`. */
  stopBroker(index: number, signal?: NodeJS.Signals): Promise<void>;
  startBroker(index: number): Promise<void>;
  remove(): Promise<void>;
}

/** Apache Kafka of our own on 127.0.0.1 (KRaft), in a temporary folder. */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaServer> {
  const { onProgress = () => undefined, brokers = 1, security = 'plaintext' } = options;
  const classPath = await kafkaClassPath(onProgress);
  const folder = new ServiceFolder('kafka');
  try {
    const certificates = security.endsWith('ssl') ? await makeCertificates(folder.path) : undefined;
    const ports = await freePorts(brokers * 3);
    const cluster = Array.from({ length: brokers }, (_, i) => portsAt(ports, i * 3));
    const server = new Cluster({ folder, classPath, cluster, options, certificates });
    onProgress('Kafka: formatting its storage');
    await server.format();
    await server.start();
    onProgress(`Kafka: ready at ${server.brokers.join(',')}`);
    return server;
  } catch (error) {
    await folder.remove();
    throw error;
  }
}

function portsAt(ports: readonly number[], index: number): KafkaPorts {
  const [client, internal, controller] = ports.slice(index, index + 3) as [number, number, number];
  return { client, internal, controller };
}

/** 16 random bytes as the storage tool reads them; it would take a leading `-` for an option. */
function makeClusterId(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0] ?? 0) & 0x7f;
  return bytes.toString('base64url');
}

class Cluster implements KafkaServer {
  readonly brokers: string[];
  readonly plaintextBrokers: string[];
  readonly certificates: Certificates | undefined;
  readonly folder: string;
  private readonly parts: {
    readonly folder: ServiceFolder;
    readonly classPath: string;
    readonly cluster: readonly KafkaPorts[];
    readonly options: KafkaOptions;
  };
  private readonly processes = new Map<number, ServerProcess>();

  constructor(parts: Cluster['parts'] & { certificates: Certificates | undefined }) {
    this.parts = parts;
    this.certificates = parts.certificates;
    this.folder = parts.folder.path;
    this.brokers = parts.cluster.map(({ client }) => `127.0.0.1:${client}`);
    this.plaintextBrokers = parts.cluster.map(({ internal }) => `127.0.0.1:${internal}`);
  }

  async format(): Promise<void> {
    const clusterId = makeClusterId();
    const { users = [] } = this.parts.options;
    for (const index of this.parts.cluster.keys()) {
      writeFileSync(this.propertiesFile(index), this.properties(index));
      // It runs for a second: the optimising compiler would cost more than it gains.
      const tool = ['kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', this.propertiesFile(index)];
      await run(
        'java',
        ['-XX:TieredStopAtLevel=1', ...this.javaArguments(64), ...tool, ...scramArguments(users)],
        {
          cwd: this.parts.folder.path,
        },
      );
    }
  }

  private properties(index: number): string {
    const { options, cluster, folder } = this.parts;
    return brokerProperties({
      nodeId: index + 1,
      cluster,
      advertised: options.advertised?.[index],
      dataDir: join(folder.path, `data-${index + 1}`),
      security: options.security ?? 'plaintext',
      users: options.users ?? [],
      certificates: this.certificates,
      clientAuth: options.clientAuth ?? 'none',
      settings: options.settings ?? {},
    });
  }

  private propertiesFile(index: number): string {
    return join(this.parts.folder.path, `server-${index + 1}.properties`);
  }

  private javaArguments(heapMb: number): string[] {
    const logging = '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn';
    return [`-Xmx${heapMb}m`, '-XX:+UseSerialGC', '-Xshare:auto', logging, '-cp', this.parts.classPath];
  }

  pids(): number[] {
    return [...this.processes.values()].filter(({ running }) => running).map(({ pid }) => pid);
  }

  async start(): Promise<void> {
    await Promise.all([...this.parts.cluster.keys()].map(async (index) => await this.launch(index)));
    await Promise.all([...this.processes.keys()].map(async (index) => await this.untilServing(index)));
  }

  async startBroker(index: number): Promise<void> {
    await this.launch(index);
    await this.untilServing(index);
  }

  private async launch(index: number): Promise<void> {
    if (this.processes.get(index)?.running === true) return;
    const started = await ServerProcess.start({
      folder: this.parts.folder,
      name: `kafka-${index + 1}`,
      command: 'java',
      args: [
        ...this.javaArguments(this.parts.options.heapMb ?? 512),
        'kafka.Kafka',
        this.propertiesFile(index),
      ],
    });
    this.processes.set(index, started);
  }

  private async untilServing(index: number): Promise<void> {
    const process = this.processes.get(index);
    const port = this.parts.cluster[index]?.internal;
    if (process === undefined || port === undefined) throw new Error(`there is no broker ${index}`);
    await process.untilReady(async () => await accepts(port), START_TIMEOUT_MS);
    await process.untilReady(async () => await this.isUnfenced(index), START_TIMEOUT_MS);
  }

  /** A broker listens before the controller lets it lead partitions; topics made in between fail. */
  private async isUnfenced(index: number): Promise<boolean> {
    const broker = this.plaintextBrokers[index];
    if (broker === undefined) return false;
    const client = new Kafka({
      brokers: [broker],
      logLevel: logLevel.NOTHING,
      retry: { retries: 0 },
      connectionTimeout: 2000,
    });
    const admin = client.admin();
    try {
      await admin.connect();
      const { brokers } = await admin.describeCluster();
      return brokers.some(({ nodeId }) => nodeId === index + 1);
    } catch {
      return false;
    } finally {
      await admin.disconnect();
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await Promise.all([...this.processes.keys()].map(async (index) => await this.stopBroker(index, signal)));
  }

  async stopBroker(index: number, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.processes.get(index)?.stop(signal);
  }

  async remove(): Promise<void> {
    await this.stop('SIGKILL');
    await this.parts.folder.remove();
  }
}
