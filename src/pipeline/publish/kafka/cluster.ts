import type { KafkaConfig } from '../../../config/config.ts';
import { RelayError } from '../../../errors/errors.ts';
import { messageOf, toError } from '../../../errors/thrown.ts';
import { Backoff } from '../../../lifecycle/backoff.ts';
import { type Address, BrokerLink } from './link.ts';
import type { MetadataAnswer } from './protocol.ts';

export interface ClusterEvents {
  /** A link to this node has come. */
  readonly onLink: (nodeId: number) => void;
  /** A link has ended. `lastOne`: no broker is connected any more. */
  readonly onLinkLost: (nodeId: number, reason: Error, lastOne: boolean) => void;
  readonly onMetadata: (answer: MetadataAnswer) => void;
  /** A broker refused the credentials or the certificate while others work. */
  readonly onFatal: (error: RelayError) => void;
}

interface Node extends Address {
  link: BrokerLink | undefined;
  opening: boolean;
  readonly backoff: Backoff;
  /** No attempt before this time, `performance.now()`. */
  notBefore: number;
  /** Why the last attempt failed. */
  failure: string | undefined;
}

const CONNECT_TIMEOUT_MS = 10_000;

/** The brokers: who they are, one link to each that is needed, and metadata over any of them. */
export class Cluster {
  private readonly config: KafkaConfig;
  private readonly events: ClusterEvents;
  private readonly nodes = new Map<number, Node>();
  /** Links by address that no node is known for: a bootstrap address that the brokers don't advertise. */
  private readonly strangers = new Set<BrokerLink>();
  private readonly wanted = new Set<string>();
  private asking = false;
  /** Ends what is being opened; made anew by `disconnect`. */
  private opening = new AbortController();
  private closed = false;
  private nextSeed = 0;

  constructor(config: KafkaConfig, events: ClusterEvents) {
    this.config = config;
    this.events = events;
  }

  get connected(): boolean {
    return this.anyLink() !== undefined;
  }

  /**
   * Connects to the first broker that answers: those configured, then those once seen. Nothing to do when connected.
   * @throws RelayError; one that needs a person before one that may pass.
   */
  async connect(): Promise<void> {
    if (this.connected) return;
    const { signal } = this.opening;
    const addresses = this.addresses();
    let failure: RelayError | undefined;
    for (const address of addresses) {
      if (signal.aborted) break;
      try {
        await this.connectTo(address, signal);
        return;
      } catch (error) {
        if (!(error instanceof RelayError)) throw error;
        if (failure?.consequence !== 'stop') failure = error;
      }
    }
    throw (
      failure ??
      new RelayError('retry', 'kafka-unreachable', 'Connecting was given up', { advice: 'None needed.' })
    );
  }

  /** The link to a node; when there is none yet, opens one, and `onLink` tells of it. */
  linkTo(nodeId: number): BrokerLink | undefined {
    const node = this.nodes.get(nodeId);
    if (node === undefined) return undefined;
    if (node.link === undefined) void this.open(nodeId, node);
    return node.link;
  }

  /** Asks for these topics with the next request; questions that come meanwhile are joined. */
  ask(topics: Iterable<string>): void {
    for (const topic of topics) this.wanted.add(topic);
    if (this.asking || this.wanted.size === 0) return;
    const link = this.anyLink();
    if (link !== undefined) void this.askOver(link);
  }

  /** Ends every link, and those being opened; `connect` begins anew, with the secrets of then. */
  disconnect(reason: Error): void {
    this.opening.abort();
    this.opening = new AbortController();
    for (const node of this.nodes.values()) node.link?.destroy(reason);
    for (const link of this.strangers) link.destroy(reason);
  }

  close(): void {
    this.closed = true;
    this.disconnect(new Error('the publisher was closed'));
  }

  private addresses(): Address[] {
    const seeds = this.config.brokers.map(parseAddress);
    const first = this.nextSeed++ % seeds.length;
    const rotated = [...seeds.slice(first), ...seeds.slice(0, first)];
    const isSeed = (node: Address): boolean => seeds.some((seed) => sameAddress(seed, node));
    return [...rotated, ...[...this.nodes.values()].filter((node) => !isSeed(node))];
  }

  private async connectTo(address: Address, signal: AbortSignal): Promise<void> {
    const link = await BrokerLink.open(address, {
      config: this.config,
      connectTimeoutMs: this.connectTimeoutMs,
      signal,
    });
    this.strangers.add(link);
    link.onClose((reason) => {
      if (this.strangers.delete(link)) this.events.onLinkLost(-1, reason, !this.connected);
    });
    try {
      this.applyBrokers(await link.metadata([], this.connectTimeoutMs));
      if (signal.aborted || !this.connected) throw new Error('the connection was ended');
    } catch (error) {
      link.destroy(toError(error));
      throw asUnreachable(error, address);
    }
    for (const node of this.nodes.values()) node.notBefore = 0;
    this.ask([]);
  }

  private get connectTimeoutMs(): number {
    return Math.min(CONNECT_TIMEOUT_MS, this.config.requestTimeoutMs);
  }

  /** Of each broker that there is no link to and whose last attempt failed: why. */
  unreachable(): string[] {
    return [...this.nodes.values()].flatMap(({ link, failure }) =>
      link !== undefined || failure === undefined ? [] : [failure],
    );
  }

  /** Any link that is open. */
  anyLink(): BrokerLink | undefined {
    for (const node of this.nodes.values()) if (node.link !== undefined) return node.link;
    for (const link of this.strangers) return link;
    return undefined;
  }

  private async open(nodeId: number, node: Node): Promise<void> {
    if (node.opening || performance.now() < node.notBefore || this.closed) return;
    node.opening = true;
    try {
      const { connectTimeoutMs, config } = this;
      const link = await BrokerLink.open(node, { config, connectTimeoutMs, signal: this.opening.signal });
      if (this.nodes.get(nodeId) !== node || node.link !== undefined) {
        link.destroy(new Error('not needed any more'));
        return;
      }
      this.adopt(nodeId, node, link);
    } catch (error) {
      node.notBefore = performance.now() + node.backoff.next();
      node.failure = messageOf(error);
      if (error instanceof RelayError && error.consequence === 'stop') this.events.onFatal(error);
    } finally {
      node.opening = false;
    }
    if (node.link !== undefined) this.events.onLink(nodeId);
  }

  private adopt(nodeId: number, node: Node, link: BrokerLink): void {
    node.link = link;
    node.failure = undefined;
    node.backoff.reset();
    link.onClose((reason) => {
      if (node.link !== link) return;
      node.link = undefined;
      if (!this.closed) this.events.onLinkLost(nodeId, reason, !this.connected);
    });
  }

  private async askOver(link: BrokerLink): Promise<void> {
    this.asking = true;
    const topics = [...this.wanted];
    this.wanted.clear();
    try {
      const answer = await link.metadata(topics, this.config.requestTimeoutMs);
      this.applyBrokers(answer);
      this.events.onMetadata(answer);
    } catch (error) {
      // Not lost: they are asked for again over the next link.
      for (const topic of topics) this.wanted.add(topic);
      link.destroy(toError(error));
    } finally {
      this.asking = false;
    }
    this.ask([]);
  }

  private applyBrokers(answer: MetadataAnswer): void {
    const seen = new Set(answer.brokers.map((broker) => broker.nodeId));
    for (const [nodeId, node] of this.nodes) {
      // A node that left the list may only be restarting: its link ends by itself, and nothing leads to it meanwhile.
      if (!seen.has(nodeId) && node.link === undefined) this.nodes.delete(nodeId);
    }
    for (const { nodeId, host, port } of answer.brokers) {
      const known = this.nodes.get(nodeId);
      if (known !== undefined && sameAddress(known, { host, port })) continue;
      known?.link?.destroy(new Error('the broker has moved to another address'));
      const backoff = new Backoff({ firstMs: 100, maxMs: 5000 });
      const node: Node = {
        host,
        port,
        link: undefined,
        opening: false,
        backoff,
        notBefore: 0,
        failure: undefined,
      };
      this.nodes.set(nodeId, node);
    }
    this.adoptStrangers();
  }

  /** A bootstrap address that a node advertises is that node's link: one connection less. */
  private adoptStrangers(): void {
    for (const [nodeId, node] of this.nodes) {
      for (const link of this.strangers) {
        if (!sameAddress(link.address, node)) continue;
        this.strangers.delete(link);
        if (node.link === undefined) this.adopt(nodeId, node, link);
        else link.destroy(new Error('the broker has a link already'));
      }
    }
  }
}

function sameAddress(a: Address, b: Address): boolean {
  return a.port === b.port && a.host === b.host;
}

/** `host:port` or `[::1]:port`, as the configuration has checked. */
function parseAddress(text: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d+)$/.exec(text);
  return { host: match?.[1] ?? match?.[2] ?? text, port: Number(match?.[3]) };
}

function asUnreachable(error: unknown, address: Address): RelayError {
  const text = messageOf(error);
  return new RelayError(
    'retry',
    'kafka-unreachable',
    `Kafka broker ${address.host}:${address.port}: ${text}`,
    {
      advice:
        'Check that KAFKA_SASL_MECHANISM and KAFKA_SSL_ENABLED fit the listener: a broker that wants a login closes the connection without one.',
      cause: error,
    },
  );
}
