import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { RelayError } from '../errors/errors.ts';
import { messageOf } from '../errors/thrown.ts';
import { METRICS_CONTENT_TYPE } from './metrics.ts';

export interface Probe {
  readonly ok: boolean;
  readonly reason: string;
}

/** What the server shows. None of them may throw; `metrics` may take a moment. */
export interface Exhibits {
  live(): Probe;
  ready(): Probe;
  status(): object;
  metrics(): Promise<string>;
}

export interface HttpServer {
  /** The port it listens on; another than asked for only if that was 0. */
  readonly port: number;
  /** Ends open connections too. Idempotent. */
  close(): Promise<void>;
}

// A scrape takes milliseconds. Whoever is slower than this gets its socket closed, so that a stuck client can neither
// hold memory nor the shutdown.
const CLIENT_TIMEOUT_MS = 10_000;
const MAX_CONNECTIONS = 100;

/** Serves /metrics, /livez, /readyz and /status. Throws RelayError('stop') when it can't listen there. */
export async function startHttp(
  address: { readonly host: string; readonly port: number },
  exhibits: Exhibits,
): Promise<HttpServer> {
  const server = createServer(
    {
      headersTimeout: CLIENT_TIMEOUT_MS,
      requestTimeout: CLIENT_TIMEOUT_MS,
      connectionsCheckingInterval: CLIENT_TIMEOUT_MS / 2,
      maxHeaderSize: 8192,
    },
    (request, response) => void answer(request, response, exhibits),
  );
  server.maxConnections = MAX_CONNECTIONS;
  server.setTimeout(CLIENT_TIMEOUT_MS);
  // A broken client is no error of the relay; without a listener Node answers 400 and closes, which is right.
  await listen(server, address);
  const bound = server.address();
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : address.port,
    close: async () => {
      const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function listen(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port }, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } catch (error) {
    throw new RelayError('stop', 'http-address', `can't listen on ${host}:${port} for metrics and health`, {
      advice:
        'Another process has the port, or the address is not of this host: set HTTP_HOST and HTTP_PORT.',
      cause: error,
    });
  }
}

interface Answer {
  readonly status: number;
  readonly type?: string;
  readonly body: string;
}

async function answer(request: IncomingMessage, response: ServerResponse, exhibits: Exhibits): Promise<void> {
  // Bodies are never read; a request that brings one is answered and its connection closed.
  const { status, type = 'text/plain; charset=utf-8', body } = await compose(request, exhibits);
  response.on('error', () => undefined);
  const bytes = Buffer.from(body);
  response.writeHead(status, {
    'content-type': type,
    'content-length': bytes.length,
    'cache-control': 'no-store',
    ...(status === 405 ? { allow: 'GET, HEAD', connection: 'close' } : {}),
  });
  response.end(request.method === 'HEAD' ? undefined : bytes);
}

async function compose(request: IncomingMessage, exhibits: Exhibits): Promise<Answer> {
  const path = (request.url ?? '/').split('?', 1)[0] ?? '/';
  const show = ROUTES.get(path);
  if (show === undefined)
    return { status: 404, body: `not found; there are ${[...ROUTES.keys()].join(', ')}\n` };
  if (request.method !== 'GET' && request.method !== 'HEAD') return { status: 405, body: 'GET or HEAD\n' };
  const late = new AbortController();
  try {
    return await Promise.race([
      show(exhibits),
      sleep(CLIENT_TIMEOUT_MS / 2, { status: 503, body: 'not ready in time\n' }, { signal: late.signal }),
    ]);
  } catch (error) {
    return { status: 500, body: `${messageOf(error)}\n` };
  } finally {
    late.abort();
  }
}

const ROUTES: ReadonlyMap<string, (exhibits: Exhibits) => Answer | Promise<Answer>> = new Map([
  ['/livez', (exhibits: Exhibits): Answer => probe(exhibits.live())],
  ['/readyz', (exhibits: Exhibits): Answer => probe(exhibits.ready())],
  [
    '/status',
    (exhibits: Exhibits): Answer => ({
      status: 200,
      type: 'application/json',
      body: `${json(exhibits.status())}\n`,
    }),
  ],
  [
    '/metrics',
    async (exhibits: Exhibits): Promise<Answer> => ({
      status: 200,
      type: METRICS_CONTENT_TYPE,
      body: await exhibits.metrics(),
    }),
  ],
] as [string, (exhibits: Exhibits) => Answer | Promise<Answer>][]);

function probe({ ok, reason }: Probe): Answer {
  return { status: ok ? 200 : 503, body: `${ok ? 'ok' : 'failed'}: ${reason}\n` };
}

/** Positions are bigint. */
function json(value: object): string {
  return JSON.stringify(
    value,
    (_key, part: unknown) => (typeof part === 'bigint' ? part.toString() : part),
    2,
  );
}
