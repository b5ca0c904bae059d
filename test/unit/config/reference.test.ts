import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'node:test';
import { renderEnv, renderMarkdown } from '../../../scripts/config-reference.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { VARIABLES } from '../../../src/config/settings.ts';

const path = (name: string): string => fileURLToPath(new URL(`../../../config/${name}`, import.meta.url));
const content = (name: string): string => readFileSync(path(name), 'utf8');

describe('config/', () => {
  it('the reference is as the schema says; else: npm run config:reference', () => {
    assert.equal(content('reference.md'), renderMarkdown());
    assert.equal(content('reference.env'), renderEnv());
  });

  it('the example names every variable once, and its defaults are the defaults', () => {
    const names = [...content('reference.env').matchAll(/^#([A-Z][A-Z_]+)=/gmu)].map(([, name]) => name);
    assert.deepEqual(names, VARIABLES);
    const { database: _a, ...plain } = loadConfig({ DATABASE_URL: 'postgres://u@h/d', BROKER: 'stdout' });
    const defaults = Object.fromEntries(
      [...content('reference.env').matchAll(/^#([A-Z][A-Z_]+)=(.+)$/gmu)].map(([, name, value]) => [
        name,
        value,
      ]),
    );
    const { database: _b, ...written } = loadConfig({
      DATABASE_URL: 'postgres://u@h/d',
      BROKER: 'stdout',
      ...defaults,
    });
    assert.deepEqual(written, plain);
  });

  it('the smallest set-ups are complete', () => {
    assert.equal(loadConfig({}, { file: path('kafka.env') }).broker.kind, 'kafka');
    assert.equal(loadConfig({}, { file: path('rabbitmq.env') }).broker.kind, 'rabbitmq');
  });
});
