/**
 * Carries out the steps of the Dockerfile in a folder, without a container engine: same files, same commands, same
 * user, no kernel isolation. What it can't show: the base image itself (this machine's npm and the Node.js that runs
 * this script stand in for it).
 *
 *     node scripts/image-steps.ts [folder]      builds into the folder and prints the command that starts the result
 */
import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process';
import type { Stats } from 'node:fs';
import {
  chmod,
  copyFile,
  cp,
  lchown,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Instruction, parseDockerfile, parseDockerignore, type Stage } from './image-steps-parser.ts';

const CONTEXT = fileURLToPath(new URL('..', import.meta.url));

export interface Image {
  /** Folder that stands for `/`. */
  readonly root: string;
  workdir: string;
  readonly env: Record<string, string>;
  user: { readonly uid: number; readonly gid: number } | undefined;
  entrypoint: readonly string[];
  cmd: readonly string[];
  healthcheck: readonly string[];
  readonly labels: string[];
  readonly ports: number[];
}

/** Builds every stage of the Dockerfile below `folder`; resolves to the last one, with nothing in it writable. */
export async function buildImage(folder: string, log: (line: string) => void): Promise<Image> {
  const stages = parseDockerfile(await readFile(join(CONTEXT, 'Dockerfile'), 'utf8'));
  const allowed = parseDockerignore(await readFile(join(CONTEXT, '.dockerignore'), 'utf8'));
  await chmod(folder, 0o755);
  const built = new Map<string, Image>();
  for (const stage of stages) {
    log(`stage ${stage.name}`);
    built.set(stage.name, await buildStage(stage, { folder, allowed, built, log }));
  }
  const last = [...built.values()].at(-1);
  if (last === undefined) throw new Error('The Dockerfile has no stage');
  await setWritable(last.root, false);
  return last;
}

/** Starts the image: `args` replace CMD, `env` is all that the process gets besides the image's own ENV. */
export function startImage(
  image: Image,
  args: readonly string[],
  options: { readonly env?: Record<string, string>; readonly stdio?: StdioOptions } = {},
): ChildProcess {
  return execInImage(image, [...image.entrypoint, ...(args.length > 0 ? args : image.cmd)], options);
}

/** Starts any command of the image in its working directory, as its user, like an engine's `exec`. */
export function execInImage(
  image: Image,
  argv: readonly string[],
  options: { readonly env?: Record<string, string>; readonly stdio?: StdioOptions } = {},
): ChildProcess {
  const [command = '', ...args] = argv;
  return spawn(
    join(binFolder(image), command),
    args.map((arg) => (arg.startsWith('/') ? inside(image, arg) : arg)),
    {
      cwd: inside(image, image.workdir),
      env: { PATH: binFolder(image), ...imageEnvironment(image), ...options.env },
      stdio: options.stdio ?? ['ignore', 'pipe', 'pipe'],
      ...identity(image),
    },
  );
}

/** Removes what `buildImage` made, read-only folders included. */
export async function removeImage(folder: string): Promise<void> {
  await setWritable(folder, true);
  await rm(folder, { recursive: true, force: true });
}

/** Every file below the image's root with size and time, to see afterwards that nothing was written. */
export async function listFiles(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const lines = entries.map(async (entry) => {
    const path = join(entry.parentPath, entry.name);
    const { size, mtimeMs } = await lstat(path);
    return `${path} ${size} ${mtimeMs}`;
  });
  return (await Promise.all(lines)).sort();
}

interface Build {
  readonly folder: string;
  readonly allowed: readonly string[];
  readonly built: ReadonlyMap<string, Image>;
  readonly log: (line: string) => void;
}

async function buildStage(stage: Stage, build: Build): Promise<Image> {
  const image = emptyImage(join(build.folder, stage.name));
  const base = build.built.get(stage.base);
  if (base === undefined) await standInForBase(image.root);
  else {
    await cp(base.root, image.root, { recursive: true, verbatimSymlinks: true });
    Object.assign(image.env, base.env);
    image.workdir = base.workdir;
  }
  for (const instruction of stage.instructions) await apply(instruction, image, build);
  return image;
}

async function apply(step: Instruction, image: Image, build: Build): Promise<void> {
  switch (step.kind) {
    case 'workdir':
      image.workdir = step.path;
      await mkdir(inside(image, step.path), { recursive: true });
      break;
    case 'env':
      image.env[step.name] = step.value;
      break;
    case 'copy':
      await copy(step, image, build);
      break;
    case 'run':
      build.log(`  RUN ${step.command}`);
      await run(step.command, image);
      break;
    case 'user':
      image.user = { uid: step.uid, gid: step.gid };
      break;
    case 'label':
      image.labels.push(step.text);
      break;
    case 'expose':
      image.ports.push(step.port);
      break;
    case 'entrypoint':
    case 'cmd':
    case 'healthcheck':
      image[step.kind] = step.argv;
      break;
  }
}

async function copy(step: Extract<Instruction, { kind: 'copy' }>, image: Image, build: Build): Promise<void> {
  const origin = step.from === undefined ? undefined : build.built.get(step.from);
  if (step.from !== undefined && origin === undefined)
    throw new Error(`COPY --from=${step.from}: no such stage`);
  const intoFolder = step.to.endsWith('/') || step.sources.length > 1;
  for (const source of step.sources) {
    if (
      origin === undefined &&
      !build.allowed.some((path) => source === path || source.startsWith(`${path}/`))
    )
      throw new Error(`COPY ${source}: .dockerignore keeps it out of the build`);
    const from = origin === undefined ? join(CONTEXT, source) : inside(origin, source);
    const isFolder = (await stat(from)).isDirectory();
    const to = join(inside(image, step.to), intoFolder && !isFolder ? (source.split('/').at(-1) ?? '') : '');
    await cp(from, to, { recursive: true, verbatimSymlinks: true });
    // COPY gives everything to root; a plain copy would keep the owner.
    if (process.getuid?.() === 0) await eachFile(to, async (path) => await lchown(path, 0, 0));
  }
}

async function run(command: string, image: Image): Promise<void> {
  const child = spawn('sh', ['-c', command], {
    cwd: inside(image, image.workdir),
    env: {
      ...buildEnvironment(),
      ...imageEnvironment(image),
      PATH: `${binFolder(image)}${delimiter}${ownPath()}`,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...identity(image),
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += String(chunk)));
  const code = await new Promise<number | null>((settle, fail) => {
    child.once('close', settle).once('error', fail);
  });
  if (code !== 0) throw new Error(`RUN ${command} ended with ${String(code)}:\n${output}`);
}

/** Only the super-user can become another one; else the file modes alone keep the process from writing. */
function identity(image: Image): Image['user'] {
  return process.getuid?.() === 0 ? image.user : undefined;
}

function emptyImage(root: string): Image {
  return {
    root,
    workdir: '/',
    env: {},
    user: undefined,
    entrypoint: [],
    cmd: [],
    healthcheck: [],
    labels: [],
    ports: [],
  };
}

/** A copy, because the image's user may not be able to read where this machine keeps its Node.js. */
async function standInForBase(root: string): Promise<void> {
  const bin = join(root, 'usr/local/bin');
  await mkdir(bin, { recursive: true });
  await copyFile(process.execPath, join(bin, 'node'));
  await chmod(join(bin, 'node'), 0o755);
}

function binFolder(image: Image): string {
  return inside(image, '/usr/local/bin');
}

function inside(image: Image, path: string): string {
  return path.startsWith('/') ? join(image.root, path) : join(image.root, image.workdir, path);
}

/** Without the checkout's node_modules, whose commands would hide that the image lacks them. */
function ownPath(): string {
  const entries = (process.env['PATH'] ?? '').split(delimiter);
  return entries.filter((entry) => !entry.split(sep).includes('node_modules')).join(delimiter);
}

/** A value that is a path from the root means the image's root. */
function imageEnvironment(image: Image): Record<string, string> {
  return Object.fromEntries(
    Object.entries(image.env).map(([name, value]) => [
      name,
      value.startsWith('/') ? inside(image, value) : value,
    ]),
  );
}

/** What npm needs to reach its registry from here, and nothing that `npm test` adds. */
function buildEnvironment(): Record<string, string> {
  const wanted =
    /^(HOME|https?_proxy|no_proxy|npm_config_(registry|cafile|https?_proxy|cache)|NODE_EXTRA_CA_CERTS)$/i;
  return Object.fromEntries(
    Object.entries(process.env).filter(
      (entry): entry is [string, string] => wanted.test(entry[0]) && entry[1] !== undefined,
    ),
  );
}

async function setWritable(root: string, writable: boolean): Promise<void> {
  await eachFile(root, async (path, info) => {
    if (!info.isSymbolicLink()) await chmod(path, writable ? info.mode | 0o200 : info.mode & ~0o222);
  });
}

/** Folders before what is in them: a folder must be writable before its files can be removed. */
async function eachFile(path: string, visit: (path: string, info: Stats) => Promise<void>): Promise<void> {
  const info = await lstat(path);
  await visit(path, info);
  if (!info.isDirectory()) return;
  for (const name of await readdir(path)) await eachFile(join(path, name), visit);
}

if (import.meta.main) {
  const folder =
    process.argv[2] === undefined
      ? await mkdtemp(join(tmpdir(), 'outbox-relay-image-'))
      : resolve(process.argv[2]);
  await mkdir(folder, { recursive: true });
  const image = await buildImage(folder, (line) => process.stdout.write(`${line}\n`));
  const argv = image.entrypoint.map((word) => (word.startsWith('/') ? inside(image, word) : word));
  process.stdout.write(`${join(binFolder(image), argv.join(' '))}\n`);
}
