import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { afterEach, beforeEach, test } from 'node:test';
import { RelayError } from '../../../src/errors/errors.ts';
import { type Exhibits, type HttpServer, startHttp } from '../../../src/observe/http.ts';

let server: HttpServer;
let exhibits: { -readonly [K in keyof Exhibits]: Exhibits[K] };

beforeEach(async () => {
  exhibits = {
    live: () => ({ ok: true, reason: 'loop turns' }),
    ready: () => ({ ok: false, reason: 'starting' }),
    status: () => ({ mode: 'streaming', lsn: 2n ** 60n }),
    metrics: async () => await Promise.resolve('# HELP x y\nx 1\n'),
  };
  // Calls go through, so that a test may change the exhibits later.
  const through: Exhibits = {
    live: () => exhibits.live(),
    ready: () => exhibits.ready(),
    status: () => exhibits.status(),
    metrics: async () => await exhibits.metrics(),
  };
  server = await startHttp({ host: '127.0.0.1', port: 0 }, through);
});

afterEach(async () => await server.close());

async function get(
  path: string,
  method = 'GET',
): Promise<{ status: number; type: string | null; body: string }> {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`, { method });
  return { status: response.status, type: response.headers.get('content-type'), body: await response.text() };
}

test('each path answers with its content type; probes by status', async () => {
  assert.deepEqual(await get('/livez'), {
    status: 200,
    type: 'text/plain; charset=utf-8',
    body: 'ok: loop turns\n',
  });
  assert.deepEqual(await get('/readyz?verbose'), {
    status: 503,
    type: 'text/plain; charset=utf-8',
    body: 'failed: starting\n',
  });
  const status = await get('/status');
  assert.equal(status.type, 'application/json');
  assert.deepEqual(JSON.parse(status.body), { mode: 'streaming', lsn: '1152921504606846976' });
  assert.deepEqual(await get('/metrics'), {
    status: 200,
    type: 'text/plain; version=0.0.4; charset=utf-8',
    body: '# HELP x y\nx 1\n',
  });
});

test('HEAD has no body, other methods and paths are refused', async () => {
  assert.deepEqual(await get('/livez', 'HEAD'), { status: 200, type: 'text/plain; charset=utf-8', body: '' });
  assert.equal((await get('/livez', 'POST')).status, 405);
  assert.equal((await get('/', 'GET')).status, 404);
  assert.equal((await get('/metrics/', 'DELETE')).status, 404);
});

test('an exhibit that throws is a 500, and the server goes on', async () => {
  exhibits.metrics = async () => await Promise.reject(new Error('no figures'));
  assert.deepEqual(await get('/metrics'), {
    status: 500,
    type: 'text/plain; charset=utf-8',
    body: 'no figures\n',
  });
  exhibits.status = () => {
    throw new Error('no status');
  };
  assert.equal((await get('/status')).status, 500);
  assert.equal((await get('/livez')).status, 200);
});

test('a port that is taken is a clear error that stops', async () => {
  const second = startHttp({ host: '127.0.0.1', port: server.port }, exhibits);
  await assert.rejects(second, (error) => {
    assert.ok(error instanceof RelayError);
    assert.equal(error.consequence, 'stop');
    assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${server.port}`));
    assert.match(error.advice, /HTTP_PORT/);
    return true;
  });
});

test('clients that send half a request, garbage or never read neither hold the close nor other clients', async () => {
  exhibits.metrics = async () => await Promise.resolve('x'.repeat(50_000_000));
  const openings = [
    'GET /livez HTTP/1.1\r\nHost',
    'garbage\r\n\r\n',
    '',
    'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n',
  ];
  const clients = openings.map((opening) => {
    const client = connect(server.port, '127.0.0.1');
    client.on('error', () => undefined);
    client.pause();
    client.write(opening);
    return client;
  });
  assert.equal((await get('/livez')).status, 200);
  const startedMs = performance.now();
  await server.close();
  assert.ok(performance.now() - startedMs < 2000);
  for (const client of clients) client.destroy();
});
