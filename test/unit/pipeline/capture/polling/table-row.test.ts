import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as fc from 'fast-check';
import { TableRow, toEvent } from '../../../../../src/pipeline/capture/polling/table-row.ts';
import type { TableShape } from '../../../../../src/pipeline/capture/polling/table-shape.ts';
import { InFlightWindow } from '../../../../../src/pipeline/window.ts';
import { DEFAULT_OUTBOX } from '../../../../support/default-outbox.ts';

const OIDS = { seq: 20, xid: 5069, id: 2950, aggregateid: 25, payload: 3802, raw: 17, note: 25 };
const FIXED = new Set(['seq', 'xid', 'id']);
const SHAPE: TableShape = {
  columns: Object.keys(OIDS),
  typeOids: new Map(Object.entries(OIDS)),
  fixed: FIXED,
  signatures: [],
};

type Values = Record<string, string | null>;

/** ASCII, up to U+00FF, and beyond: V8 holds the first two in one byte a character. */
const anyText = fc.oneof(
  fc.string({ maxLength: 2_000, size: 'max' }),
  fc.string({ maxLength: 2_000, size: 'max', unit: 'binary' }),
  fc.string({ maxLength: 2_000, size: 'max', unit: fc.constantFrom('a', 'ß') }),
  fc.string({ maxLength: 6_000, size: 'max', unit: fc.constantFrom('д', '中', '😀', ' ') }),
);

const anyValues: fc.Arbitrary<Values> = fc.record({
  seq: fc.constant('7'),
  xid: fc.constant('9'),
  id: fc.uuid(),
  aggregateid: anyText,
  payload: fc.option(anyText),
  raw: fc.option(
    fc
      .uint8Array({ maxLength: 5_000, size: 'max' })
      .map((bytes) => `\\x${Buffer.from(bytes).toString('hex')}`),
  ),
  note: fc.option(anyText),
});

function utf8Bytes(values: Values, columns: readonly string[] = SHAPE.columns): number {
  return columns.reduce((sum, column) => sum + Buffer.byteLength(values[column] ?? ''), 0);
}

const VARIABLE = SHAPE.columns.filter((column) => !FIXED.has(column));

function rowOf(values: Values, measuredBytes = utf8Bytes(values, VARIABLE)): TableRow {
  return new TableRow(SHAPE, { ...values }, measuredBytes);
}

function bytesOf(values: Values, column: string): Buffer | null {
  const value = values[column] ?? null;
  if (value === null) return null;
  return column === 'raw' ? Buffer.from(value.slice(2), 'hex') : Buffer.from(value);
}

describe('TableRow', () => {
  it('P7 its size is that of UTF-8, whatever was measured before', () => {
    fc.assert(
      fc.property(anyValues, fc.option(fc.nat(10_000)), (values, measured) => {
        // Of an older version of the row, which by chance had as many bytes as this one has characters.
        fc.pre(measured !== VARIABLE.reduce((sum, column) => sum + (values[column]?.length ?? 0), 0));
        assert.equal(rowOf(values, measured ?? undefined).sizeBytes, utf8Bytes(values));
      }),
    );
  });

  it('P2 texts and bytes are those of the server, however often and in which order they are asked for', () => {
    const asked = fc.array(
      fc.tuple(fc.constantFrom('text', 'bytes', 'own'), fc.constantFrom(...SHAPE.columns)),
      { minLength: 1, maxLength: 30 },
    );
    fc.assert(
      fc.property(anyValues, asked, (values, questions) => {
        const row = rowOf(values);
        for (const [what, column] of questions) {
          if (what === 'text') assert.equal(row.text(column), values[column]);
          else if (what === 'bytes') assert.deepEqual(row.bytes(column), bytesOf(values, column));
          else assert.deepEqual(row.own(row.bytes(column) ?? null), bytesOf(values, column));
        }
      }),
    );
  });

  it('tells empty, NULL and missing apart', () => {
    const row = rowOf({ payload: '', raw: '\\x', note: null });
    assert.deepEqual(
      ['payload', 'raw', 'note', 'absent'].map((column) => row.text(column)),
      ['', '\\x', null, undefined],
    );
    assert.deepEqual(
      ['payload', 'raw', 'note', 'absent'].map((column) => row.bytes(column)),
      [Buffer.alloc(0), Buffer.alloc(0), null, undefined],
    );
    assert.throws(() => rowOf({ raw: 'abc' }).bytes('raw'), /bytea_output must be hex/);
  });

  it('P7 one that waits keeps no pool of Buffers in memory', () => {
    const row = rowOf({ payload: 'x'.repeat(300), raw: `\\x${'ab'.repeat(50)}`, note: 'д'.repeat(300) });
    row.bytes('raw');
    const body = row.own(row.bytes('payload') ?? null);
    for (const bytes of [body, row.bytes('payload'), row.bytes('raw'), row.bytes('note')])
      assert.equal((bytes as Buffer).buffer.byteLength, bytes?.length);
    assert.equal(row.bytes('payload'), body, 'in memory once');
  });
});

describe('what polled events take in memory', () => {
  setFlagsFromString('--expose_gc');
  const collect = runInNewContext('gc') as () => void;
  const heldBytes = async (): Promise<number> => {
    // What is collected is given back by another thread.
    for (let i = 0; i < 2; i++) {
      collect();
      await setImmediate();
    }
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };

  for (const [column, name, text] of [
    ['payload', 'ASCII', 'x'.repeat(8_000)],
    ['payload', 'one emoji in ASCII', `${'x'.repeat(8_000)}😀`],
    ['note', 'one emoji in ASCII', `${'x'.repeat(8_000)}😀`],
    ['payload', 'Cyrillic', 'д'.repeat(8_000)],
    ['note', 'Chinese', '中'.repeat(8_000)],
  ] as const) {
    it(`P7 is what the window counts: ${name} in ${column}`, async () => {
      const window = new InFlightWindow({ maxEvents: 1e6, maxBytes: 1e12 });
      const encoded = Buffer.from(text);
      const before = await heldBytes();
      const events = Array.from({ length: 1_000 }, (_, seq) => {
        const values: Values = { seq: String(seq), xid: '9', id: 'i', aggregateid: 'a', payload: '{}' };
        // A string of its own, as the driver makes it.
        values[column] = encoded.toString();
        const bytesOfRow = new Map([[seq, utf8Bytes(values, VARIABLE)]]);
        const fetched = { shape: SHAPE, bytesOf: bytesOfRow, leftBytes: 0, notBeforeMs: 0 };
        const event = toEvent(values, { ...fetched, columns: DEFAULT_OUTBOX.columns });
        window.enter(event);
        return { event, body: event.row.bytes('payload') };
      });
      const held = (await heldBytes()) - before;
      assert.ok(held < window.bytes, `${held} bytes held, ${window.bytes} counted`);
      assert.ok(held > 0.7 * window.bytes, `${held} bytes held, ${window.bytes} counted`);
      assert.equal(events.length, 1_000);
    });
  }
});
