import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { decodeHexBytea } from '../../../../../src/pipeline/capture/bytea.ts';
import { SQL_NULL, TupleRow } from '../../../../../src/pipeline/capture/streaming/tuple-row.ts';

const relation = {
  oid: 1,
  schema: 'public',
  table: 'outbox',
  columns: ['empty', 'null', 'text'],
  typeOids: [25, 25, 3802],
  indexOf: new Map([
    ['empty', 0],
    ['null', 1],
    ['text', 2],
  ]),
};

describe('TupleRow', () => {
  const row = new TupleRow(relation, Buffer.from('--ä€😀'), [2, 2, SQL_NULL, SQL_NULL, 2, 11]);

  it('P2 tells empty, NULL and missing apart', () => {
    assert.deepEqual(
      ['empty', 'null', 'absent'].map((column) => row.text(column)),
      ['', null, undefined],
    );
    assert.deepEqual(
      ['empty', 'null', 'absent'].map((column) => row.bytes(column)),
      [Buffer.alloc(0), null, undefined],
    );
    assert.deepEqual(
      ['text', 'absent'].map((column) => row.typeOid(column)),
      [3802, undefined],
    );
  });

  it('P2 offsets are bytes, not characters', () => {
    assert.equal(row.text('text'), 'ä€😀');
    assert.deepEqual(row.bytes('text'), Buffer.from('ä€😀'));
  });
});

describe('decodeHexBytea', () => {
  it('reads the hex form and refuses the other, which would be wrong bytes', () => {
    assert.deepEqual(decodeHexBytea(Buffer.from('\\x')), Buffer.alloc(0));
    assert.deepEqual(decodeHexBytea(Buffer.from('\\x00ffDEad')), Buffer.from([0, 255, 0xde, 0xad]));
    for (const text of ['', 'x00', '\\', 'abc', '\\001']) {
      assert.throws(() => decodeHexBytea(Buffer.from(text)), /bytea_output must be hex/);
    }
  });
});
