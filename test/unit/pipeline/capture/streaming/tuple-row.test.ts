import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { decodeHexBytea } from '../../../../../src/pipeline/capture/bytea.ts';
import { viewOf } from '../../../../../src/pipeline/capture/byte-range.ts';
import type { TupleRow } from '../../../../../src/pipeline/capture/streaming/tuple-row.ts';
import { TupleStore } from '../../../../../src/pipeline/capture/streaming/tuple-store.ts';
import { insertMessage } from './wire.ts';

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

/** Behind the message type, the relation and the kind of tuple. */
const TUPLE_AT = 6;

function stored(store: TupleStore, values: readonly (string | null)[]): TupleRow {
  const message = insertMessage(1, values);
  const row = store.add(relation, message, TUPLE_AT, message.length);
  message.fill(0xff);
  return row;
}

describe('TupleRow', () => {
  const row = stored(new TupleStore(), ['', null, 'ä€😀']);

  it('P2 tells empty, NULL and missing apart', () => {
    assert.deepEqual(
      ['empty', 'null', 'absent'].map((column) => row.text(column)),
      ['', null, undefined],
    );
    assert.deepEqual(
      ['empty', 'null', 'absent'].map((column) => viewOf(row.bytes(column))),
      [Buffer.alloc(0), null, undefined],
    );
    assert.deepEqual(
      ['text', 'absent'].map((column) => row.typeOid(column)),
      [3802, undefined],
    );
  });

  it('P2 offsets are bytes, not characters', () => {
    assert.equal(row.text('text'), 'ä€😀');
    assert.deepEqual(viewOf(row.bytes('text')), Buffer.from('ä€😀'));
  });

  it('P2 a text that it probably equals changes nothing', () => {
    const ascii = stored(new TupleStore(), ['abc', null, 'ä€😀']);
    for (const like of [
      '',
      'abc',
      'abd',
      'ab',
      'abcd',
      'ä€😀',
      'ä€',
      Buffer.from('ä€😀').toString('latin1'),
    ]) {
      assert.equal(ascii.text('empty', like), 'abc');
      assert.equal(ascii.text('text', like), 'ä€😀');
      assert.equal(ascii.text('null', like), null);
    }
  });
});

describe('TupleStore', () => {
  it('P2 rows of one buffer keep their own values, whatever their sizes and the order in which they are looked at', () => {
    const store = new TupleStore();
    const texts = Array.from({ length: 2_000 }, (_, i) => `${i}:`.padEnd((i * 7919) % 6_000, 'x'));
    const rows = texts.map((text) => stored(store, [text, null, String(text.length)]));
    for (const i of [...rows.keys()].toSorted((a, b) => ((a * 31) % 2_000) - ((b * 31) % 2_000))) {
      assert.equal(rows[i]?.text('empty'), texts[i]);
      assert.equal(rows[i]?.digits('text'), texts[i]?.length);
      assert.equal(viewOf(rows[i]?.bytes('empty'))?.toString(), texts[i]);
    }
  });

  it('P7 an event that waits keeps no more than 16 KiB of its neighbours', () => {
    const store = new TupleStore();
    const buffers = Array.from({ length: 100 }, () =>
      viewOf(stored(store, ['x'.repeat(900), '', '']).bytes('empty')),
    );
    for (const bytes of buffers) assert.ok((bytes?.buffer.byteLength ?? Infinity) <= 16_384);
    const large = viewOf(stored(store, ['x'.repeat(9_000), '', '']).bytes('empty'));
    assert.ok((large?.buffer.byteLength ?? Infinity) < 9_100);
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
