#!/usr/bin/env node
// The built program when there is one, else the sources. Either with this Node when it is new enough, else with the
// project's own. Plain enough to be read by an old Node, which would otherwise fail with a riddle.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const built = new URL('../dist/main.js', import.meta.url);
const sources = new URL('../src/main.ts', import.meta.url);
const launcher = new URL('../scripts/with-dependencies.mjs', import.meta.url);

// Both came with Node.js 22.
const newEnough = typeof Promise.withResolvers === 'function' && typeof JSON.rawJSON === 'function';

if (existsSync(built) && newEnough) {
  await import(built.href);
} else if (existsSync(launcher)) {
  process.argv.splice(2, 0, fileURLToPath(existsSync(built) ? built : sources));
  await import(launcher.href);
} else {
  console.error(
    `outbox-relay needs Node.js 22 or newer (24 is what it is tested with); this is ${process.version}.`,
  );
  process.exitCode = 1;
}
