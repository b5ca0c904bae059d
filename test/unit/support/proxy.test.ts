import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, beforeEach, test } from 'node:test';
import { Proxy } from '../../support/proxy.ts';
import { until } from '../../support/until.ts';

const server = createServer((socket) => {
  serverSockets.add(socket);
  socket.on('close', () => serverSockets.delete(socket));
  socket.on('error', () => undefined);
  socket.pipe(socket);
});
const serverSockets = new Set<Socket>();
let proxy: Proxy;
let client: Socket;
let echoed = '';

beforeEach(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  proxy = await Proxy.start(`127.0.0.1:${(server.address() as AddressInfo).port}`);
  client = await open();
});

afterEach(async () => {
  client.destroy();
  await proxy.close();
  for (const socket of serverSockets) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
});

async function open(): Promise<Socket> {
  echoed = '';
  const socket = connect(proxy.port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.on('data', (data) => (echoed += data.toString()));
  await once(socket, 'connect');
  return socket;
}

async function untilEchoed(text: string): Promise<void> {
  await until(() => echoed === text, { what: `${text.length} bytes; ${echoed.length} there` });
}

test('proxy: forwards megabytes unchanged', async () => {
  const text = 'x'.repeat(8_000_000);
  client.write(text);
  await untilEchoed(text);
});

test('proxy: cut resets what is open and accepts new connections', async () => {
  client.write('a');
  await untilEchoed('a');
  proxy.cut();
  await until(() => client.closed, { what: 'the reset' });
  client = await open();
  client.write('b');
  await untilEchoed('b');
});

test('proxy: a black hole accepts and passes nothing, and what was held back arrives after it healed', async () => {
  client.write('a');
  await untilEchoed('a');
  proxy.blackHole();
  client.write('b');
  const second = connect(proxy.port, '127.0.0.1');
  let answered = false;
  second.on('data', () => (answered = true));
  await once(second, 'connect');
  second.write('c');
  await assert.rejects(
    until(() => echoed !== 'a' || answered, { timeoutMs: 100, what: 'a byte' }),
    /not within/,
  );
  proxy.heal();
  await untilEchoed('ab');
  await until(() => answered, { what: 'the second connection to be answered' });
  second.destroy();
});

test('proxy: a client that goes away behind a black hole is noticed by the server only after it healed', async () => {
  client.write('a');
  await untilEchoed('a');
  proxy.blackHole();
  client.destroy();
  await once(client, 'close');
  await assert.rejects(
    until(() => serverSockets.size === 0, { timeoutMs: 100, what: 'the end' }),
    /not within/,
  );
  proxy.heal();
  await until(() => serverSockets.size === 0, { what: 'the server to notice' });
  await until(() => proxy.connections === 0, { what: 'the proxy to forget the connection' });
});

test('proxy: stalls after exactly so many bytes', async () => {
  proxy.stallAfter(3);
  client.write('abcdef');
  await untilEchoed('abc');
  await assert.rejects(
    until(() => echoed !== 'abc', { timeoutMs: 100, what: 'more' }),
    /not within/,
  );
  proxy.heal();
  await untilEchoed('abcdef');
});

test('proxy: slow delays and keeps the order', async () => {
  proxy.slow(40);
  const started = performance.now();
  for (const letter of 'abcdef') client.write(letter);
  await untilEchoed('abcdef');
  assert.ok(performance.now() - started >= 75, 'there and back take twice the delay');
  proxy.slow(200);
  client.write('g');
  await until(() => proxy.held === 1, { what: 'the proxy to hold the byte', intervalMs: 1 });
  proxy.heal();
  client.write('h');
  await untilEchoed('abcdefgh');
});

test('proxy: rewrites a URL', () => {
  const { port } = server.address() as AddressInfo;
  assert.equal(
    proxy.url(`amqp://guest:guest@127.0.0.1:${port}/v`),
    `amqp://guest:guest@127.0.0.1:${proxy.port}/v`,
  );
});
