import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { Proxy } from '../../support/proxy.ts';

export type Direction = 'to-server' | 'to-client';

/**
 * The way from relays to one server: `proxy` resets, holds and delays; `tear` lets so many more bytes of one direction
 * pass and then ends every connection, in the middle of whatever frame that is.
 */
export class Line {
  readonly proxy: Proxy;
  private readonly front: Server;
  private readonly links = new Set<readonly [client: Socket, upstream: Socket]>();
  private torn: { readonly direction: Direction; left: number } | undefined;

  private constructor(front: Server, proxy: Proxy) {
    this.front = front;
    this.proxy = proxy;
    front.on('connection', (client) => this.accept(client));
  }

  static async start(target?: string): Promise<Line> {
    const proxy = await Proxy.start(target);
    const front = createServer({ allowHalfOpen: true });
    front.listen(0, '127.0.0.1');
    await once(front, 'listening');
    return new Line(front, proxy);
  }

  get address(): string {
    return `127.0.0.1:${(this.front.address() as AddressInfo).port}`;
  }

  /** The same URL by way of this line. */
  url(original: string): string {
    const url = new URL(original);
    return original.replace(url.host, this.address);
  }

  tear(direction: Direction, afterBytes: number): void {
    this.torn = { direction, left: afterBytes };
  }

  heal(): void {
    this.torn = undefined;
    this.proxy.heal();
  }

  async close(): Promise<void> {
    for (const pair of this.links) for (const socket of pair) socket.destroy();
    await this.proxy.close();
    await new Promise((resolve) => this.front.close(resolve));
  }

  private accept(client: Socket): void {
    const upstream = connect({ host: '127.0.0.1', port: this.proxy.port, allowHalfOpen: true });
    const pair = [client, upstream] as const;
    this.links.add(pair);
    this.forward(client, upstream, 'to-server');
    this.forward(upstream, client, 'to-client');
    for (const socket of pair) {
      socket.setNoDelay(true);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        this.links.delete(pair);
        for (const other of pair) other.destroy();
      });
    }
  }

  private forward(from: Socket, to: Socket, direction: Direction): void {
    from.on('data', (chunk) => {
      const { torn } = this;
      const part = torn?.direction === direction ? chunk.subarray(0, torn.left) : chunk;
      if (torn?.direction === direction) torn.left -= part.length;
      if (!to.write(part)) from.pause();
      if (part.length < chunk.length) this.end();
    });
    to.on('drain', () => from.resume());
    from.on('end', () => to.end());
  }

  /** What was written before still arrives: an end, not a reset, which would take it back. */
  private end(): void {
    for (const pair of this.links) for (const socket of pair) socket.destroySoon();
    this.torn = undefined;
  }
}
