import { createServer, connect } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { once } from 'node:events';

type Mode =
  | { readonly kind: 'forward' }
  /** Connections are accepted and stay open; no byte passes in either direction. */
  | { readonly kind: 'black-hole' }
  /** So many bytes still pass from the server to clients (all connections together), then none in either direction. */
  | { readonly kind: 'stall'; left: number }
  /** Every chunk is passed on this many milliseconds later. */
  | { readonly kind: 'slow'; readonly ms: number };

const FORWARD: Mode = { kind: 'forward' };

/** A TCP proxy on 127.0.0.1 that fails on demand. */
export class Proxy {
  readonly port: number;
  private readonly server: Server;
  private target: { readonly host: string; readonly port: number } | undefined;
  private mode: Mode = FORWARD;
  private readonly links = new Set<Link>();

  private constructor(server: Server, target: string | undefined) {
    this.server = server;
    this.port = (server.address() as AddressInfo).port;
    if (target !== undefined) this.forwardTo(target);
    server.on('connection', (client) => this.accept(client));
  }

  /** `target`: host:port or a URL. It may be given later by `forwardTo`, for a server that has to know its proxy. */
  static async start(target?: string): Promise<Proxy> {
    const server = createServer({ allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new Proxy(server, target);
  }

  forwardTo(target: string): void {
    const url = new URL(target.includes('://') ? target : `tcp://${target}`);
    this.target = { host: url.hostname, port: Number(url.port) };
  }

  /** host:port of the proxy. */
  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** The same URL by way of the proxy. */
  url(original: string): string {
    const { host, port } = this.target ?? {};
    return original.replace(`${host}:${port}`, this.address);
  }

  get connections(): number {
    return this.links.size;
  }

  /** Chunks that `slow` is holding back now. */
  get held(): number {
    return [...this.links].reduce((sum, link) => sum + link.held, 0);
  }

  /** Resets every connection there is; new ones are accepted and forwarded. */
  cut(): void {
    for (const link of this.links) link.reset();
  }

  blackHole(): void {
    this.change({ kind: 'black-hole' });
  }

  stallAfter(bytes: number): void {
    this.change({ kind: 'stall', left: bytes });
  }

  slow(ms: number): void {
    this.change({ kind: 'slow', ms });
  }

  /** Forwards again; what was held back arrives, as after a network that healed. */
  heal(): void {
    this.change(FORWARD);
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private change(mode: Mode): void {
    this.mode = mode;
    for (const link of this.links) link.resume();
  }

  private accept(client: Socket): void {
    if (this.target === undefined) {
      client.destroy();
      return;
    }
    const link = new Link(client, connect({ ...this.target, allowHalfOpen: true }), () => this.mode);
    this.links.add(link);
    link.onClose = () => this.links.delete(link);
  }
}

/** One client's connection with its connection to the server. */
class Link {
  onClose: () => void = () => undefined;
  private readonly client: Socket;
  private readonly upstream: Socket;
  private readonly mode: () => Mode;
  private readonly delayed = { toClient: new DelayQueue(), toServer: new DelayQueue() };

  constructor(client: Socket, upstream: Socket, mode: () => Mode) {
    this.client = client;
    this.upstream = upstream;
    this.mode = mode;
    this.forward(client, upstream, false);
    this.forward(upstream, client, true);
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      socket.on('error', () => this.reset());
      socket.on('close', () => this.closed());
    }
  }

  /** Pausing leaves the bytes in the kernel: the sender notices nothing until its own buffers are full. */
  private forward(from: Socket, to: Socket, towardsClient: boolean): void {
    from.on('readable', () => this.pump(from, to, towardsClient));
    to.on('drain', () => this.pump(from, to, towardsClient));
    from.on('end', () => this.pump(from, to, towardsClient));
  }

  private pump(from: Socket, to: Socket, towardsClient: boolean): void {
    for (;;) {
      const limit = this.limit(towardsClient);
      if (limit === 0 || to.writableNeedDrain) return;
      const available = Math.min(from.readableLength, limit);
      const chunk = available === 0 ? null : (from.read(available) as Buffer | null);
      if (chunk === null) {
        // Asking for nothing would not arm the next 'readable' event.
        if (from.readableLength === 0) from.read(0);
        if (from.readableEnded) this.later(towardsClient, () => to.end());
        return;
      }
      const mode = this.mode();
      if (mode.kind === 'stall' && towardsClient) mode.left -= chunk.length;
      this.later(towardsClient, () => to.writable && to.write(chunk));
    }
  }

  private limit(towardsClient: boolean): number {
    const mode = this.mode();
    if (mode.kind === 'black-hole') return 0;
    if (mode.kind !== 'stall') return Infinity;
    if (mode.left <= 0) return 0;
    return towardsClient ? mode.left : Infinity;
  }

  private later(towardsClient: boolean, action: () => void): void {
    const mode = this.mode();
    const queue = towardsClient ? this.delayed.toClient : this.delayed.toServer;
    queue.add(mode.kind === 'slow' ? mode.ms : 0, action);
  }

  get held(): number {
    return this.delayed.toClient.length + this.delayed.toServer.length;
  }

  /** The proxy's behaviour has changed: what was held back may go on. */
  resume(): void {
    this.pump(this.client, this.upstream, false);
    this.pump(this.upstream, this.client, true);
    if (this.client.destroyed || this.upstream.destroyed) this.closed();
  }

  reset(): void {
    for (const socket of [this.client, this.upstream]) {
      if (socket.destroyed) continue;
      // A reset while its end is still to be sent leaves Node's handle behind: the process then spins at its exit.
      if (socket.connecting || socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
  }

  /** A side that vanishes behind a black hole is not noticed by the other: its server still believes in the connection. */
  private closed(): void {
    const open = [this.client, this.upstream].filter(({ destroyed }) => !destroyed);
    if (open.length === 0) this.onClose();
    else if (this.limit(true) !== 0) for (const socket of open) socket.destroySoon();
  }
}

/** Runs actions later, in their order even when the delay becomes shorter meanwhile. */
class DelayQueue {
  private readonly waiting: { readonly dueMs: number; readonly action: () => void }[] = [];

  get length(): number {
    return this.waiting.length;
  }

  add(delayMs: number, action: () => void): void {
    const last = this.waiting.at(-1);
    if (last === undefined && delayMs === 0) {
      action();
      return;
    }
    this.waiting.push({ dueMs: Math.max(performance.now() + delayMs, last?.dueMs ?? 0), action });
    if (last === undefined) this.schedule();
  }

  private schedule(): void {
    const [first] = this.waiting;
    if (first === undefined) return;
    setTimeout(
      () => {
        // Taken out afterwards: until then an undelayed action has to queue up behind it.
        first.action();
        this.waiting.shift();
        this.schedule();
      },
      Math.max(0, first.dueMs - performance.now()),
    );
  }
}
