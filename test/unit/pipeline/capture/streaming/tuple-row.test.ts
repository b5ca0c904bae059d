import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { decodeHexBytea } from '../../../../../src/pipeline/capture/bytea.ts';
import { viewOf } from '../../../../../src/pipeline/capture/byte-range.ts';
import {
  baseTypeOid,
  withBaseTypes,
  type Relation,
  type TupleRow,
} from '../../../../../src/pipeline/capture/streaming/tuple-row.ts';
import { TupleStore } from '../../../../../src/pipeline/capture/streaming/tuple-store.ts';
import { insertMessage } from './wire.ts';

const relation: Relation = {
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

function stored(store: TupleStore, values: readonly (string | null)[], shape = relation): TupleRow {
  const message = insertMessage(1, values);
  const row = store.add(shape, message, TUPLE_AT, message.length);
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

describe('a row that waits while its neighbours leave', () => {
  const BYTEA = withBaseTypes({ ...relation, typeOids: [25, 25, 70_001] }, new Map([[70_001, 17]]));
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300, size: 'max' }),
    fc.string({ unit: fc.constantFrom('x', '中'), maxLength: 6_000, size: 'max' }),
  );
  const hex = fc.uint8Array({ maxLength: 3_000, size: 'max' });

  it('P2 its values and its body stay what they are, also when it is moved twice', () => {
    const any = fc.array(fc.tuple(text, fc.option(text), fc.option(hex)), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(any, fc.array(fc.nat(29)), (values, moved) => {
        const store = new TupleStore();
        const texts = values.map(([empty, other, bytes]) => [
          empty,
          other,
          bytes && `\\x${Buffer.from(bytes).toString('hex')}`,
        ]);
        const rows = texts.map((each) => stored(store, each, BYTEA));
        const bodies = rows.map((row) => [row.bytes('empty'), row.bytes('text')]);
        for (const index of moved) {
          const row = rows[index];
          const of = bodies[index];
          if (row && of) bodies[index] = of.map((body) => row.own(body ?? null));
        }
        for (const [i, row] of rows.entries()) {
          assert.deepEqual(
            relation.columns.map((column) => row.text(column)),
            texts[i],
          );
          const [empty, bytes] = bodies[i] ?? [];
          assert.deepEqual(viewOf(empty), Buffer.from(texts[i]?.[0] ?? ''));
          assert.deepEqual(viewOf(bytes), values[i]?.[2] ? Buffer.from(values[i][2]) : null);
        }
      }),
    );
  });

  it('P7 it keeps its own bytes in memory and no others', () => {
    const store = new TupleStore();
    const values = ['x'.repeat(300), null, `\\x${'ab'.repeat(40)}`];
    const row = stored(store, values, BYTEA);
    const tuple = insertMessage(1, values).length - TUPLE_AT;
    assert.ok((viewOf(row.bytes('empty'))?.buffer.byteLength ?? 0) > 10_000, 'shared before');
    const body = viewOf(row.own(row.bytes('empty') ?? null));
    assert.equal(body?.buffer.byteLength, tuple);
    assert.equal(viewOf(row.bytes('empty'))?.buffer, body?.buffer);
    assert.equal(viewOf(row.own(row.bytes('text') ?? null))?.buffer.byteLength, 40, 'a decoded body');
    assert.equal(viewOf(row.bytes('empty'))?.buffer, body?.buffer, 'moved once');
    assert.equal(row.own(null), null);
    const large = stored(store, ['x'.repeat(9_000), null, null], BYTEA);
    const before = viewOf(large.bytes('empty'))?.buffer;
    assert.equal(viewOf(large.own(large.bytes('empty') ?? null))?.buffer, before, 'it shared nothing');
  });
});

describe('domains in the stream', () => {
  it('P2 what a type is based on decides what its values are', () => {
    const baseOids = new Map<number, number>();
    for (const [oid, schema, name] of [
      [70_001, '', 'bytea'],
      [70_002, '', 'jsonb'],
      [70_003, '', 'json'],
      [70_004, '', 'text'],
      [70_005, 'public', 'jsonb'],
    ] as const) {
      const base = baseTypeOid(schema, name);
      if (base !== undefined) baseOids.set(oid, base);
    }
    const announced = { ...relation, typeOids: [70_001, 70_004, 70_002] };
    assert.deepEqual(withBaseTypes(announced, baseOids).typeOids, [17, 70_004, 3802]);
    assert.deepEqual(
      withBaseTypes({ ...relation, typeOids: [70_003, 70_005, 25] }, baseOids).typeOids,
      [114, 70_005, 25],
    );
    assert.equal(withBaseTypes(relation, baseOids), relation);
    const row = stored(new TupleStore(), ['\\x68690a', 'a', '{}'], withBaseTypes(announced, baseOids));
    assert.equal(viewOf(row.bytes('empty'))?.toString(), 'hi\n');
    assert.equal(row.typeOid('text'), 3802);
  });
});

describe('decodeHexBytea', () => {
  it('reads the hex form and refuses the other, which would be wrong bytes', () => {
    assert.deepEqual(decodeHexBytea('\\x'), Buffer.alloc(0));
    assert.deepEqual(decodeHexBytea('\\x00ffDEad'), Buffer.from([0, 255, 0xde, 0xad]));
    for (const text of ['', 'x00', '\\', 'abc', '\\001']) {
      assert.throws(() => decodeHexBytea(text), /bytea_output must be hex/);
    }
  });
});
