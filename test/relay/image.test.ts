import assert from 'node:assert/strict';
import { once } from 'node:events';
import { access, mkdtemp, readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseDockerfile, parseDockerignore } from '../../scripts/image-steps-parser.ts';
import {
  buildImage,
  execInImage,
  type Image,
  listFiles,
  removeImage,
  startImage,
} from '../../scripts/image-steps.ts';
import { freshDatabase, withClient } from '../support/database.ts';
import { until } from '../support/until.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

interface Manifest {
  readonly version: string;
  readonly dependencies: Record<string, string>;
  readonly devDependencies: Record<string, string>;
}

const manifest = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as Manifest;

async function finished(
  child: ReturnType<typeof startImage>,
): Promise<{ code: number | null; output: string }> {
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (output += String(chunk)));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, output };
}

/** An HTTP server that answers only `/livez`; `status` is what it says. */
async function healthServer(
  status: number,
  host = '127.0.0.1',
): Promise<{ port: number; close: () => void }> {
  const server = createServer((request, response) => {
    response.writeHead(request.url === '/livez' ? status : 404).end();
  });
  server.listen(0, host);
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, close: () => server.close() };
}

describe('image', { timeout: 300_000 }, () => {
  let folder: string;
  let image: Image;
  let files: string[];

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'outbox-relay-image-'));
    image = await buildImage(folder, () => undefined);
    files = await listFiles(image.root);
  });

  after(async () => {
    await removeImage(folder);
  });

  test('prints its version', async () => {
    assert.deepEqual(await finished(startImage(image, ['--version'])), {
      code: 0,
      output: `outbox-relay ${manifest.version}\n`,
    });
  });

  test('explains its commands', async () => {
    const { code, output } = await finished(startImage(image, ['config', '--help']));
    assert.equal(code, 0, output);
    assert.match(output, /config/);
  });

  for (const args of [[], ['config']])
    test(`P10 without any configuration "${args.join(' ')}" ends at once with 78 and names what is missing`, async () => {
      const { code, output } = await finished(startImage(image, args));
      assert.equal(code, 78, output);
      assert.match(output, /BROKER/);
    });

  test('holds the production dependencies and nothing that builds or tests', async () => {
    const modules = join(image.root, 'app/node_modules');
    for (const name of Object.keys(manifest.dependencies)) await access(join(modules, name, 'package.json'));
    for (const name of Object.keys(manifest.devDependencies))
      await assert.rejects(access(join(modules, name)), name);
    for (const path of ['src', 'test', 'scripts', '.npmrc'])
      await assert.rejects(access(join(image.root, 'app', path)), path);
    for (const path of ['migrations', 'LICENSE', 'dist/main.js']) await access(join(image.root, 'app', path));
  });

  test('runs as another user that can write nothing in it', async () => {
    assert.deepEqual(image.user, { uid: 10001, gid: 10001 });
    // The super-user may write anywhere; a process that could not drop to the image's user proves nothing.
    const script = `
      for (const file of ['x', 'dist/x', 'dist/main.js', 'package.json'])
        try { require('node:fs').writeFileSync(file, ''); console.log('wrote ' + file); } catch { }
      console.log(process.getuid() === 0 ? 'root' : 'user');`;
    assert.deepEqual(await finished(execInImage(image, ['node', '-e', script])), {
      code: 0,
      output: 'user\n',
    });
  });

  for (const [what, status, code] of [
    ['passes while /livez answers 200', 200, 0],
    ['fails when /livez answers 503', 503, 1],
  ] as const)
    test(`its health check ${what}`, async () => {
      const server = await healthServer(status);
      try {
        const env = { HTTP_PORT: String(server.port) };
        assert.deepEqual(await finished(execInImage(image, image.healthcheck, { env })), {
          code,
          output: '',
        });
      } finally {
        server.close();
      }
    });

  for (const [configured, listens] of [
    ['127.0.0.2', '127.0.0.2'],
    ['0.0.0.0', '127.0.0.1'],
  ] as const)
    test(`its health check follows HTTP_HOST=${configured}`, async () => {
      const server = await healthServer(200, listens);
      try {
        const env = { HTTP_HOST: configured, HTTP_PORT: String(server.port) };
        assert.equal((await finished(execInImage(image, image.healthcheck, { env }))).code, 0);
      } finally {
        server.close();
      }
    });

  test('its health check fails when nothing listens', async () => {
    const server = await healthServer(200);
    server.close();
    const env = { HTTP_PORT: String(server.port) };
    assert.equal((await finished(execInImage(image, image.healthcheck, { env }))).code, 1);
  });

  test('node is process 1, with the command as its argument', () => {
    assert.deepEqual(image.entrypoint, [
      'node',
      '--max-semi-space-size=4',
      '--heap-growing-percent=60',
      '--no-allocation-site-pretenuring',
      '/app/dist/main.js',
    ]);
    assert.deepEqual(image.cmd, ['run']);
  });

  test('carries the version and the licence as labels', () => {
    assert.match(
      image.labels.join(' '),
      new RegExp(`image\\.version="${manifest.version.replaceAll('.', '\\.')}"`),
    );
    assert.match(image.labels.join(' '), /image\.licenses="Apache-2\.0"/);
  });

  test('is built from the Node.js that the tests run on', async () => {
    const bases = parseDockerfile(await readFile(join(ROOT, 'Dockerfile'), 'utf8')).map(
      (stage) => stage.base,
    );
    for (const base of bases)
      assert.ok(base.startsWith(`node:${manifest.devDependencies['node'] ?? '?'}-`), base);
  });

  test(
    'P1 P4 it migrates, delivers a committed row, and drains on SIGTERM',
    { timeout: 60_000 },
    async () => {
      const database = await freshDatabase();
      try {
        const env = { DATABASE_URL: database.url, BROKER: 'stdout', HTTP_HOST: '127.0.0.1', HTTP_PORT: '0' };
        const migrated = await finished(startImage(image, ['migrate'], { env }));
        assert.equal(migrated.code, 0, migrated.output);
        const sql = `select outbox_emit('order', '42', 'OrderPlaced', '{"total": 10}') as id`;
        const { id } = (
          await withClient(database.url, async (client) => await client.query<{ id: string }>(sql))
        ).rows[0] as { id: string };
        const relay = startImage(image, [], { env });
        const end = finished(relay);
        let delivered = '';
        relay.stdout?.on('data', (chunk) => (delivered += String(chunk)));
        // A relay that ended is not waited for: then what it said is the failure.
        await until(() => delivered.includes(id) || relay.exitCode !== null, {
          what: 'the row to be delivered',
        });
        relay.kill('SIGTERM');
        const { code, output } = await end;
        assert.equal(code, 0, output);
        const left = await withClient(
          database.url,
          async (client) => await client.query('select from outbox'),
        );
        assert.equal(left.rowCount, 0);
      } finally {
        await database.drop();
      }
    },
  );

  test('nothing in it has changed by all of this', async () => {
    assert.deepEqual(await listFiles(image.root), files);
  });
});

const STAGE = 'FROM node:24 AS production\n';

describe('steps of the image', () => {
  for (const [what, text] of [
    ['a shell form entry point', 'ENTRYPOINT node dist/main.js'],
    ['a shell form health check', 'HEALTHCHECK --interval=1s CMD curl localhost'],
    ['a user by name', 'USER node'],
    ['a command on a path from the root', 'RUN rm -rf /app'],
    ['a root path after an assignment', 'RUN X=/etc/passwd true'],
    ['a mount other than a cache', 'RUN --mount=type=secret,id=x npm ci'],
    ['an unknown flag of COPY', 'COPY --chmod=777 a b'],
    ['an unknown instruction', 'ADD a b'],
  ] as const)
    test(`refuse ${what}`, () => {
      assert.throws(() => parseDockerfile(`${STAGE}${text}\n`));
    });

  test('join continued lines and leave comments out', () => {
    const [stage] = parseDockerfile(`ARG V=1\n# a\nFROM node:\${V} AS build\nRUN a && \\\n    # b\n    c\n`);
    assert.deepEqual(stage, {
      name: 'build',
      base: 'node:1',
      instructions: [{ kind: 'run', command: 'a && c' }],
    });
  });

  test('take only what .dockerignore names', () => {
    assert.deepEqual(parseDockerignore('# a\n*\n!src\n!package.json\n'), ['src', 'package.json']);
    assert.throws(() => parseDockerignore('node_modules\n'));
  });
});
