import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { applyEdit } from '../../fault/random/planted.ts';
import { PLANTS } from '../../fault/random/plants.ts';

test('every planted bug still has its place in the sources', () => {
  for (const { edits } of PLANTS) {
    const texts = new Map<string, string>();
    for (const edit of edits) {
      const { file } = edit;
      const text = texts.get(file) ?? readFileSync(new URL(`../../../src/${file}`, import.meta.url), 'utf8');
      texts.set(file, applyEdit(text, edit));
    }
  }
  assert.equal(new Set(PLANTS.map(({ name }) => name)).size, PLANTS.length);
});

test('a bug is planted in one place or not at all', () => {
  const edit = { file: 'x.ts', search: 'a', replace: '$&' };
  assert.equal(applyEdit('-a-', edit), '-$&-');
  assert.throws(() => applyEdit('b', edit), /src\/x\.ts has "a" 0 times/);
  assert.throws(() => applyEdit('aa', edit), /src\/x\.ts has "a" 2 times/);
});

test('the rounds of a planted bug are those of its broker, by the seed', () => {
  for (const { schedule, broker } of PLANTS) {
    assert.equal(schedule(1).broker, broker);
    assert.deepEqual(schedule(3), schedule(3));
  }
});
