import { createSocket } from 'node:dgram';
import type { Socket } from 'node:dgram';
import { createServer } from 'node:net';

/** No process has so many servers; one that starts servers for hours must not keep a mark for each that it ever had. */
const MOST_MARKS = 500;
const marks: Socket[] = [];

/**
 * A TCP port of 127.0.0.1 that nothing listens on, and that is given to nobody else. Below the range from which systems
 * take the ports of outgoing connections: a server that is stopped and started again must not find its port taken by
 * somebody's client.
 */
export async function freePort(random: () => number = Math.random): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = 20_000 + Math.floor(random() * 12_000);
    const mark = await markOf(port);
    if (mark === undefined) continue;
    if (await isFree(port)) {
      keep(mark);
      return port;
    }
    mark.close();
  }
  throw new Error('no free port between 20000 and 32000 on 127.0.0.1');
}

/**
 * A server listens some time after its port was chosen, and not while it is started again: another process of ours would
 * find the port free. A UDP socket of the same number says that it is not, and ends with its process, however that ends.
 */
async function markOf(port: number): Promise<Socket | undefined> {
  const mark = createSocket('udp4');
  return await new Promise((resolve) => {
    mark.once('error', () => {
      mark.close();
      resolve(undefined);
    });
    mark.bind({ address: '127.0.0.1', port, exclusive: true }, () => resolve(mark.unref()));
  });
}

function keep(mark: Socket): void {
  marks.push(mark);
  if (marks.length > MOST_MARKS) marks.shift()?.close();
}

async function isFree(port: number): Promise<boolean> {
  return await new Promise<boolean>((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** `count` different free ports. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) ports.push(await freePort());
  return ports;
}
