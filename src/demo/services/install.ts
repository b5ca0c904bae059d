import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Where servers that are fetched on demand are kept; not under version control. */
const CACHE_FOLDER = fileURLToPath(new URL('../../../.cache/', import.meta.url));

export type OnProgress = (line: string) => void;

/**
 * Fills `.cache/<name>` by `fill` unless it exists. It appears complete or not at all: several processes may try at
 * the same time, and one may be interrupted.
 */
export async function installOnce(name: string, fill: (folder: string) => Promise<void>): Promise<string> {
  const folder = join(CACHE_FOLDER, name);
  if (existsSync(folder)) return folder;
  const unfinished = `${folder}.${process.pid}`;
  mkdirSync(dirname(folder), { recursive: true });
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished);
  try {
    await fill(unfinished);
    rename(unfinished, folder);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
  return folder;
}

function rename(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    // Another process was faster: its folder is as good.
    if (!existsSync(to)) throw error;
  }
}

/** Runs a command to its end and returns what it printed. A command that is missing throws with `remedy`. */
export async function run(
  command: string,
  args: readonly string[],
  options: {
    cwd?: string;
    env?: NodeJS.ProcessEnv;
    remedy?: string;
    user?: { uid: number; gid: number };
  } = {},
): Promise<string> {
  const { remedy, user, ...rest } = options;
  return await new Promise<string>((resolve, reject) => {
    execFile(command, [...args], { ...rest, ...user, maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else if (error.code === 'ENOENT') reject(new Error(`${command} is missing. ${remedy ?? ''}`));
      else
        reject(
          new Error(`${command} ${args.join(' ')} failed:\n${stdout}${stderr}`.trimEnd(), { cause: error }),
        );
    });
  });
}
