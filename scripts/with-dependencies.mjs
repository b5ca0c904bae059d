#!/usr/bin/env node
/**
 * Runs a TypeScript file of this project with the project's own Node, from whatever Node (20 or newer) is there:
 * `node scripts/with-dependencies.mjs <file.ts> [arguments]`. Installs the dependencies first when they are missing
 * or not those of the lock file.
 */
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const node = `${root}node_modules/.bin/node`;

// A terminal's Ctrl-C reaches this process twice under npm: from the terminal, and passed on by npm. The program
// would take the second for "end at once".
const SAME_SIGNAL_MS = 500;

function packagesOf(file) {
  try {
    return JSON.parse(readFileSync(root + file, 'utf8')).packages;
  } catch {
    return undefined;
  }
}

/** By content, not by time: a checkout makes the lock file newer without a change. */
function isInstalled() {
  const wanted = packagesOf('package-lock.json');
  const present = packagesOf('node_modules/.package-lock.json');
  if (wanted === undefined || present === undefined) return false;
  return Object.entries(wanted).every(
    ([path, entry]) =>
      path === '' || (entry.optional && !(path in present)) || present[path]?.version === entry.version,
  );
}

function install() {
  console.error('Installing the dependencies (npm ci) ...');
  const started = performance.now();
  // stdout belongs to the program that is run.
  const { status, error } = spawnSync('npm', ['ci', '--no-fund', '--no-audit'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
  });
  if (status !== 0) {
    console.error(`npm ci failed${error ? `: ${error.message}` : ''}. Node.js and npm: https://nodejs.org`);
    process.exit(1);
  }
  console.error(`Dependencies installed in ${((performance.now() - started) / 1000).toFixed(1)} s.`);
}

function passSignals(child) {
  const last = new Map();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2']) {
    process.on(signal, () => {
      const now = performance.now();
      if (now - (last.get(signal) ?? -Infinity) > SAME_SIGNAL_MS) child.kill(signal);
      last.set(signal, now);
    });
  }
}

if (!isInstalled()) install();

// On a terminal the program gets a process group of its own: else Ctrl-C would reach it past this process as well.
// Elsewhere it stays in this one's, so that whoever ends the group ends both.
const onTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
const child = spawn(node, process.argv.slice(2), { stdio: 'inherit', detached: onTerminal });
passSignals(child);

child.on('error', (error) => {
  console.error(`The project's Node did not start: ${error.message}`);
  process.exit(1);
});
child.on('exit', (code, signal) => {
  if (signal === null) process.exit(code ?? 1);
  // Ends in the same way, so that the caller sees the signal.
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
});
