import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { parseHeaders } from '../../../../src/pipeline/envelope/headers.ts';

function plain(json: string | null | undefined): unknown {
  const headers = parseHeaders(json);
  return typeof headers === 'object' ? { ...headers } : headers;
}

describe('headers', () => {
  it('P2 numbers keep their own digits, at any depth', () => {
    const json =
      '{"big":9007199254740993,"exact":1.10,"huge":1e400,"minus":-0,"nested":{"n":[12345678901234567890]}}';
    assert.deepEqual(plain(json), {
      big: '9007199254740993',
      exact: '1.10',
      huge: '1e400',
      minus: '-0',
      nested: '{"n":[12345678901234567890]}',
    });
  });

  it('strings as they are, other values as JSON, nulls left out', () => {
    assert.deepEqual(plain('{"s":"a \\"b\\" \\u00e9","t":true,"l":[1,"x",null],"n":null,"e":""}'), {
      s: 'a "b" é',
      t: 'true',
      l: '[1,"x",null]',
      e: '',
    });
  });

  it('none at all are undefined', () => {
    for (const json of [null, undefined, '{}', 'null']) assert.equal(parseHeaders(json), undefined);
    assert.deepEqual(plain('{"only":null}'), {});
  });

  it('P10 what is not a JSON object is a reason, never an exception', () => {
    for (const json of [
      '[]',
      '[{"a":1}]',
      '5',
      '-1.5e3',
      '"text"',
      'true',
      'false',
      '',
      '{',
      '{"a":}',
      'NaN',
    ]) {
      assert.equal(typeof parseHeaders(json), 'string', json);
    }
    const deep = '['.repeat(200_000) + ']'.repeat(200_000);
    assert.doesNotThrow(() => parseHeaders(`{"deep":${deep}}`));
  });

  it('a name that JavaScript knows is a name like any other', () => {
    const headers = parseHeaders('{"__proto__":"a","constructor":"b","toString":"c"}') as Record<
      string,
      string
    >;
    assert.deepEqual(Object.entries(headers), [
      ['__proto__', 'a'],
      ['constructor', 'b'],
      ['toString', 'c'],
    ]);
  });

  it('any dictionary of texts comes through as it is', () => {
    fc.assert(
      fc.property(
        fc.dictionary(
          fc.string({ unit: 'binary', maxLength: 20 }),
          fc.string({ unit: 'binary', maxLength: 20 }),
          { minKeys: 1, maxKeys: 10 },
        ),
        (given) => {
          const headers = parseHeaders(JSON.stringify(given)) as Record<string, string>;
          assert.deepEqual(Object.entries(headers), Object.entries(given));
        },
      ),
      { numRuns: 30 },
    );
  });
});
