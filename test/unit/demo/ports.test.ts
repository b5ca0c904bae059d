import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:net';
import type { Server } from 'node:net';
import { describe, test } from 'node:test';
import { freePort } from '../../../src/demo/services/ports.ts';

const PORTS = new URL('../../../src/demo/services/ports.ts', import.meta.url).href;
const PORT_COUNT = 12_000;

/** Draws these ports, then any. */
function drawing(...ports: readonly number[]): () => number {
  const drawn = ports.map((port) => (port - 20_000 + 0.5) / PORT_COUNT);
  return () => drawn.shift() ?? Math.random();
}

describe('free ports', () => {
  test('one that was given away is given to nobody else, although nothing listens there yet', async () => {
    const port = await freePort();
    assert.notEqual(await freePort(drawing(port)), port);
    const elsewhere = `
      const { freePort } = await import(${JSON.stringify(PORTS)});
      const draws = [${(port - 20_000 + 0.5) / PORT_COUNT}];
      console.log(await freePort(() => draws.shift() ?? Math.random()));`;
    const given = execFileSync(process.execPath, ['--input-type=module', '--eval', elsewhere]);
    assert.notEqual(Number(given), port);
  });

  test('one on which something listens is passed over', async (t) => {
    const server = createServer();
    t.after(() => server.close());
    const taken = await listenAnywhere(server);
    assert.notEqual(await freePort(drawing(taken)), taken);
  });
});

/** On a port of the range that nobody has been given. */
async function listenAnywhere(server: Server): Promise<number> {
  for (let port = 20_000; port < 20_000 + PORT_COUNT; port++) {
    const listening = new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen({ host: '127.0.0.1', port, exclusive: true }, () => resolve(true));
    });
    if (await listening) return port;
  }
  throw new Error('every port is taken');
}
