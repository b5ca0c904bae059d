import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** One partition of a Produce request, and the node that was asked. */
export interface Produced {
  readonly nodeId: number;
  readonly topic: string;
  readonly partition: number;
}

/**
 * Brokers that speak just enough of the protocol for a producer, for answers and moments that a real cluster does not
 * give on demand. What a real one can show is shown on a real one.
 */
export class FakeKafka {
  /** Topic → leader of each partition; a topic that is not here is missing. */
  readonly topics = new Map<string, readonly number[]>();
  readonly produced: Produced[] = [];
  /** The error code to answer with; 'silence' leaves the request without an answer, 'left out' the partition out of it. */
  onProduce: (produced: Produced) => number | 'silence' | 'left out' = () => 0;
  /** The answer to a login. */
  challenge = '';
  /** Nodes that leave the handshake without an answer until they are taken out. */
  readonly mute = new Map<number, (() => void)[]>();
  private readonly nodes = new Map<number, FakeNode>();

  static async start(nodeIds: readonly number[]): Promise<FakeKafka> {
    const kafka = new FakeKafka();
    for (const nodeId of nodeIds) await kafka.addNode(nodeId);
    return kafka;
  }

  /** Also moves a node to another port: the old one stays open. */
  async addNode(nodeId: number): Promise<FakeNode> {
    const node = await FakeNode.start((socket, request) => this.answer(nodeId, socket, request));
    const before = this.nodes.get(nodeId);
    if (before !== undefined) this.retired.push(before);
    this.nodes.set(nodeId, node);
    return node;
  }

  private readonly retired: FakeNode[] = [];

  node(nodeId: number): FakeNode {
    return this.nodes.get(nodeId) as FakeNode;
  }

  /** Open connections to all nodes. */
  get connections(): number {
    return [...this.nodes.values()].reduce((sum, node) => sum + node.sockets.size, 0);
  }

  speak(nodeId: number): void {
    const held = this.mute.get(nodeId) ?? [];
    this.mute.delete(nodeId);
    for (const answer of held) answer();
  }

  async close(): Promise<void> {
    for (const node of [...this.nodes.values(), ...this.retired]) await node.close();
  }

  private answer(nodeId: number, socket: Socket, request: Buffer): void {
    const apiKey = request.readInt16BE(0);
    const body = request.subarray(10 + request.readInt16BE(8));
    const reply = (parts: Buffer[]): void => send(socket, request.readInt32BE(4), parts);
    if (apiKey === 18 && request.readInt16BE(2) > 1) {
      reply([int16(35), int32(0)]);
    } else if (apiKey === 18) {
      const held = this.mute.get(nodeId);
      const answer = (): void => reply(apiVersions());
      if (held === undefined) answer();
      else held.push(answer);
    } else if (apiKey === 3) reply(this.metadata(readMetadata(body)));
    else if (apiKey === 17) reply([int16(0), ...array([[text('SCRAM-SHA-256')]])]);
    else if (apiKey === 36) {
      const challenge = Buffer.from(this.challenge);
      reply([int16(0), int16(-1), int32(challenge.length), challenge]);
    } else this.produce(nodeId, readProduce(body), reply);
  }

  private metadata(names: readonly string[]): Buffer[] {
    const brokers = [...this.nodes].map(([nodeId, { port }]) => [
      int32(nodeId),
      text('127.0.0.1'),
      int32(port),
      int16(-1),
    ]);
    const topics = names.map((name) => {
      const leaders = this.topics.get(name);
      const partitions = (leaders ?? []).map((leader, partition) => [
        int16(0),
        int32(partition),
        int32(leader),
        Buffer.alloc(12), // no replicas, in sync, or offline
      ]);
      const head = [int16(leaders === undefined ? 3 : 0), text(name), Buffer.from([0])];
      return head.concat(array(partitions));
    });
    return [int32(0), ...array(brokers), int16(-1), int32(1), ...array(topics)];
  }

  private produce(
    nodeId: number,
    asked: ReadonlyMap<string, readonly number[]>,
    reply: (parts: Buffer[]) => void,
  ): void {
    let silent = false;
    const topics = [...asked].map(([topic, partitions]) => {
      const answers = partitions.flatMap((partition) => {
        const one = { nodeId, topic, partition };
        this.produced.push(one);
        const code = this.onProduce(one);
        silent ||= code === 'silence';
        return typeof code === 'number' ? [[int32(partition), int16(code), Buffer.alloc(24)]] : [];
      });
      return [text(topic)].concat(array(answers));
    });
    if (!silent) reply([...array(topics), int32(0)]);
  }
}

class FakeNode {
  readonly port: number;
  readonly sockets = new Set<Socket>();
  private readonly server: Server;

  private constructor(server: Server, onRequest: (socket: Socket, request: Buffer) => void) {
    this.server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
      socket.on('error', () => socket.destroy());
      let pending: Buffer = Buffer.alloc(0);
      socket.on('data', (chunk) => {
        pending = Buffer.concat([pending, chunk]);
        while (pending.length >= 4 && pending.length >= 4 + pending.readInt32BE(0)) {
          const end = 4 + pending.readInt32BE(0);
          onRequest(socket, pending.subarray(4, end));
          pending = pending.subarray(end);
        }
      });
    });
  }

  static async start(onRequest: (socket: Socket, request: Buffer) => void): Promise<FakeNode> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new FakeNode(server, onRequest);
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

export type { FakeNode };

function apiVersions(): Buffer[] {
  const offered = [
    [0, 0, 7],
    [3, 0, 5],
    [17, 0, 1],
    [18, 0, 1],
    [36, 0, 0],
  ].map((numbers) => numbers.map(int16));
  return [int16(0), ...array(offered), int32(0)];
}

function readMetadata(body: Buffer): string[] {
  const reader = new Reader(body);
  return reader.list(() => reader.text());
}

function readProduce(body: Buffer): Map<string, number[]> {
  const reader = new Reader(body);
  reader.at = 2 + 2 + 4; // no transactional id, acks, timeout
  const partition = (): number => {
    const index = reader.int32();
    const length = reader.int32();
    reader.at += length;
    return index;
  };
  return new Map(reader.list(() => [reader.text(), reader.list(partition)]));
}

class Reader {
  at = 0;
  private readonly buffer: Buffer;

  constructor(buffer: Buffer) {
    this.buffer = buffer;
  }

  int32(): number {
    this.at += 4;
    return this.buffer.readInt32BE(this.at - 4);
  }

  text(): string {
    const start = this.at + 2;
    this.at = start + this.buffer.readInt16BE(this.at);
    return this.buffer.toString('utf8', start, this.at);
  }

  list<T>(one: () => T): T[] {
    return Array.from({ length: this.int32() }, one);
  }
}

function send(socket: Socket, correlationId: number, parts: Buffer[]): void {
  const body = Buffer.concat([int32(correlationId), ...parts]);
  socket.write(Buffer.concat([int32(body.length), body]));
}

function array(items: readonly Buffer[][]): Buffer[] {
  return [int32(items.length), ...items.flat()];
}

function int16(value: number): Buffer {
  const buffer = Buffer.alloc(2);
  buffer.writeInt16BE(value);
  return buffer;
}

function int32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32BE(value);
  return buffer;
}

function text(value: string): Buffer {
  return Buffer.concat([int16(Buffer.byteLength(value)), Buffer.from(value)]);
}
