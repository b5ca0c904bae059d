import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { PgoutputPlugin, type Pgoutput } from 'pg-logical-replication';
import {
  decodePgoutput,
  readServerTimeMs,
  type PgoutputHandler,
} from '../../../../../src/pipeline/capture/streaming/decoder.ts';
import type { Relation, TupleRow } from '../../../../../src/pipeline/capture/streaming/tuple-row.ts';
import { TupleStore } from '../../../../../src/pipeline/capture/streaming/tuple-store.ts';
import { viewOf } from '../../../../../src/pipeline/capture/byte-range.ts';
import { beginMessage, commitMessage, insertMessage, relationMessage, type WireRelation } from './wire.ts';

const TEXT = 25;
const BYTEA = 17;

/** Decodes and remembers; the way the assembly uses the decoder. */
class Recorder implements PgoutputHandler {
  readonly calls: unknown[][] = [];
  readonly rows: TupleRow[] = [];
  private readonly relations = new Map<number, Relation>();
  private readonly tuples = new TupleStore();

  begin(xid: number, committedAtMs: number): void {
    this.calls.push(['begin', xid, committedAtMs]);
  }

  type(oid: number, schema: string, typeName: string): void {
    this.calls.push(['type', oid, schema, typeName]);
  }

  relation(relation: Relation): void {
    this.relations.set(relation.oid, relation);
  }

  insert(oid: number, buffer: Buffer, start: number, end: number): void {
    this.rows.push(this.tuples.add(this.relations.get(oid) as Relation, buffer, start, end));
  }

  commit(endLsn: bigint): void {
    this.calls.push(['commit', endLsn]);
  }

  /** In the middle of a larger buffer, which is overwritten afterwards, as the driver does with its own. */
  feed(message: Buffer): void {
    const buffer = Buffer.concat([Buffer.alloc(9, 0x74), message, Buffer.alloc(9, 0x74)]);
    decodePgoutput(this, buffer, 9, 9 + message.length);
    buffer.fill(0xff);
  }
}

const name = fc.stringMatching(/^[a-z é"]{1,12}$/u);
const value = fc.option(
  fc.oneof(
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.json(),
    fc.bigInt().map(String),
    fc.constantFrom('', '\\x', '{"a":1.0,"a":1e400,"b":9007199254740993}', 'null', "'"),
  ),
  { nil: null },
);
const rows = fc.uniqueArray(name, { minLength: 1, maxLength: 8 }).chain((columns) =>
  fc.record({
    relation: fc.record({
      oid: fc.constantFrom(1, 16_384, 0xffff_fff0),
      schema: name,
      table: name,
      columns: fc.constant(columns.map((column) => ({ name: column, oid: TEXT }))),
    }),
    tuples: fc.array(fc.tuple(...columns.map(() => value)), { maxLength: 5 }),
  }),
);

/** The library's own decoder, which the stream does not use. */
function newOracle(): { parse(message: Buffer): Pgoutput.Message } {
  return new PgoutputPlugin({ protoVersion: 1, publicationNames: ['outbox'] });
}

function feedAll(
  recorder: Recorder,
  relation: WireRelation,
  tuples: readonly (readonly (string | null)[])[],
): void {
  recorder.feed(relationMessage(relation));
  for (const tuple of tuples) recorder.feed(insertMessage(relation.oid, tuple));
}

describe('pgoutput decoder', () => {
  it('P2 values come out as the server sent them, byte for byte', () => {
    fc.assert(
      fc.property(rows, ({ relation, tuples }) => {
        const recorder = new Recorder();
        feedAll(recorder, relation, tuples);
        assert.equal(recorder.rows.length, tuples.length);
        for (const [i, row] of recorder.rows.entries()) {
          assert.deepEqual(
            row.columns,
            relation.columns.map((column) => column.name),
          );
          for (const [k, column] of relation.columns.entries()) {
            const sent = tuples[i]?.[k] ?? null;
            assert.deepEqual(viewOf(row.bytes(column.name)), sent === null ? null : Buffer.from(sent));
            assert.equal(row.text(column.name), sent === null ? null : Buffer.from(sent).toString());
            assert.equal(row.typeOid(column.name), TEXT);
          }
        }
      }),
    );
  });

  it("agrees with the library's own parser on every text", () => {
    fc.assert(
      fc.property(rows, ({ relation, tuples }) => {
        const oracle = newOracle();
        oracle.parse(relationMessage(relation));
        const recorder = new Recorder();
        feedAll(recorder, relation, tuples);
        for (const [i, tuple] of tuples.entries()) {
          const parsed = oracle.parse(insertMessage(relation.oid, tuple));
          assert.ok(parsed.tag === 'insert');
          const row = recorder.rows[i] as TupleRow;
          const texts = Object.fromEntries(row.columns.map((column) => [column, row.text(column)]));
          assert.deepEqual(texts, { ...parsed.new });
        }
      }),
    );
  });

  it('reads xid and OID unsigned, LSN as 64 bit, time with its microseconds', () => {
    const recorder = new Recorder();
    const committedAtMs = Date.UTC(2026, 0, 2, 3, 4, 5) + 0.125;
    recorder.feed(beginMessage(1n, committedAtMs, 0xffff_fffe));
    recorder.feed(commitMessage(1n, 0xffff_ffff_0000_0001n, committedAtMs));
    assert.deepEqual(recorder.calls, [
      ['begin', 0xffff_fffe, committedAtMs],
      ['commit', 0xffff_ffff_0000_0001n],
    ]);
  });

  it('agrees with the library on the time of any commit, to its millisecond', () => {
    fc.assert(
      fc.property(fc.integer({ min: 946_684_800_000, max: 4_102_444_800_000 }), (ms) => {
        const parsed = newOracle().parse(beginMessage(1n, ms, 1));
        assert.ok(parsed.tag === 'begin');
        assert.equal(readServerTimeMs(beginMessage(1n, ms, 1), 9), ms);
        assert.equal(Number(parsed.commitTime) / 1_000, ms);
      }),
    );
  });

  it('passes over every kind of message that brings no row, also ones to come', () => {
    const recorder = new Recorder();
    for (let kind = 0; kind < 256; kind++) {
      if ('BCRIY'.includes(String.fromCharCode(kind))) continue;
      recorder.feed(Buffer.from([kind, 1, 2, 3]));
    }
    assert.deepEqual([recorder.calls, recorder.rows], [[], []]);
  });

  it('P1 a tuple that is not as announced is an error, never a row with holes', () => {
    const relation: WireRelation = {
      oid: 1,
      schema: 's',
      table: 't',
      columns: [
        { name: 'a', oid: TEXT },
        { name: 'b', oid: TEXT },
      ],
    };
    const good = insertMessage(1, ['x', 'y']);
    const kinds = (kind: string): Buffer =>
      Buffer.concat([good.subarray(0, 8), Buffer.from(kind), good.subarray(9)]);
    for (const [bad, message] of [
      [insertMessage(1, ['x']), /differ in columns/],
      [insertMessage(1, ['x', 'y', 'z']), /differ in columns/],
      [kinds('u'), /unexpected kind of value/],
      [kinds('b'), /unexpected kind of value/],
      [good.subarray(0, good.length - 1), /past its message/],
      [Buffer.from('I\0\0\0\x01O'), /without a new tuple/],
    ] as const) {
      const recorder = new Recorder();
      recorder.feed(relationMessage(relation));
      assert.throws(() => recorder.feed(bad), message);
      assert.deepEqual(recorder.rows, []);
    }
  });

  it('decodes bytea from its hex form, exactly', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        const recorder = new Recorder();
        const columns = [{ name: 'payload', oid: BYTEA }];
        const hex = `\\x${Buffer.from(bytes).toString('hex')}`;
        feedAll(recorder, { oid: 1, schema: 's', table: 't', columns }, [[hex]]);
        const [row] = recorder.rows as [TupleRow];
        assert.deepEqual(viewOf(row.bytes('payload')), Buffer.from(bytes));
        assert.equal(row.text('payload'), hex);
      }),
    );
  });
});
