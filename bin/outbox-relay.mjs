#!/usr/bin/env node
// The built program when there is one, else the sources with the project's own Node.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const built = new URL('../dist/main.js', import.meta.url);

if (existsSync(built)) {
  await import(built.href);
} else {
  process.argv.splice(2, 0, fileURLToPath(new URL('../src/main.ts', import.meta.url)));
  await import('../scripts/with-dependencies.mjs');
}
