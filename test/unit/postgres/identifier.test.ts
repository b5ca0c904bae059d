import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  derivedName,
  fillTemplate,
  qualified,
  quoteIdentifier,
  quoteLiteral,
} from '../../../src/postgres/identifier.ts';

test('identifiers and literals are quoted so that nothing can end them early', () => {
  assert.equal(quoteIdentifier('a"b'), '"a""b"');
  assert.equal(qualified('my schema', 'outbox'), '"my schema"."outbox"');
  assert.equal(quoteLiteral(`it's`), `'it''s'`);
  assert.equal(quoteLiteral(String.raw`a\'`), String.raw` E'a\\'''`);
  assert.throws(() => quoteIdentifier(''), TypeError);
  assert.throws(() => quoteIdentifier('a\0'), TypeError);
});

test('a derived name keeps its suffix within 63 bytes, and whole characters', () => {
  assert.equal(derivedName('outbox', '_seq'), 'outbox_seq');
  const long = derivedName('é'.repeat(31), '_seq');
  assert.equal(long, `${'é'.repeat(29)}_seq`);
  assert.ok(Buffer.byteLength(long) <= 63);
});

test('a template is filled completely or not at all', () => {
  const values = { t: 'ta"ble', s: ['pub', 'seq'] };
  assert.equal(
    fillTemplate(`:"t" :'t' :"s" :'s' '::"t"`, values),
    `"ta""ble" 'ta"ble' "pub"."seq" '"pub"."seq"' '::"t"`,
  );
  assert.throws(() => fillTemplate(':"unknown"', values), /no value for :"unknown"/);
  assert.throws(() => fillTemplate(':"t"', { t: 'a$body$b' }), /\$body\$/);
});
