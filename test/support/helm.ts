import { execFile } from 'node:child_process';
import { access, chmod, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const execute = promisify(execFile);

const VERSION = 'v4.3.1';
const CACHE = fileURLToPath(new URL('../../.cache/bin', import.meta.url));

export interface HelmResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs helm. A failure is a result, not an exception: tests look at what was refused and why. */
export async function helm(...args: string[]): Promise<HelmResult> {
  const path = await helmPath();
  return await new Promise((resolve) => {
    execFile(path, args, { maxBuffer: 16 << 20 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
      resolve({ code, stdout, stderr });
    });
  });
}

let path: Promise<string> | undefined;

/** `TEST_HELM`, else a helm 3 or 4 on the PATH, else one built from its Go module, once, into `.cache/bin`. */
function helmPath(): Promise<string> {
  path ??= locate();
  return path;
}

async function locate(): Promise<string> {
  const given = process.env['TEST_HELM'];
  if (given !== undefined && given !== '') return given;
  const cached = join(CACHE, `helm-${VERSION}`);
  if (await exists(cached)) return cached;
  if (await answers('helm', ['version', '--short'], /^v[34]\./)) return 'helm';
  if (!(await answers('go', ['version'], /go1\./)))
    throw new Error(
      'The chart tests need helm 3 or 4 (or Go, to build it): install one, or set TEST_HELM to a helm binary.',
    );
  await build(cached);
  return cached;
}

/** Built aside and renamed: an interrupted build must not leave half a binary behind under the final name. */
async function build(target: string): Promise<void> {
  process.stderr.write(`building helm ${VERSION} once, this takes some minutes\n`);
  await mkdir(CACHE, { recursive: true });
  const folder = await mkdtemp(join(CACHE, 'helm-build-'));
  try {
    await execute('go', ['install', `helm.sh/helm/v4/cmd/helm@${VERSION}`], {
      env: { ...process.env, GOBIN: folder, CGO_ENABLED: '0' },
      timeout: 600_000,
      maxBuffer: 16 << 20,
    });
    await chmod(join(folder, 'helm'), 0o755);
    await rename(join(folder, 'helm'), target);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function exists(file: string): Promise<boolean> {
  return await access(file).then(
    () => true,
    () => false,
  );
}

async function answers(command: string, args: string[], expected: RegExp): Promise<boolean> {
  return await execute(command, args).then(
    ({ stdout }) => expected.test(stdout),
    () => false,
  );
}
