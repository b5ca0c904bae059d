import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { Framer } from '../../../../../src/pipeline/capture/streaming/framing.ts';
import { frame, insertMessage } from './wire.ts';

interface Seen {
  readonly type: number;
  readonly body: string;
}

function collect(framer: Framer, chunks: Iterable<Buffer>): Seen[] {
  const seen: Seen[] = [];
  for (const chunk of chunks) {
    framer.push(chunk, (type, buffer, start, end) => {
      seen.push({ type, body: buffer.toString('latin1', start, end) });
    });
  }
  return seen;
}

function* chop(bytes: Buffer, cuts: readonly number[]): Generator<Buffer> {
  let from = 0;
  for (const cut of [...new Set(cuts.map((c) => c % (bytes.length + 1)))].toSorted((a, b) => a - b)) {
    // A copy, as a socket hands it out.
    if (cut > from) yield Buffer.from(bytes.subarray(from, cut));
    from = cut;
  }
  if (from < bytes.length) yield Buffer.from(bytes.subarray(from));
}

describe('Framer', () => {
  it('P1 any chopping of the byte stream gives the same messages', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom('d', 'W', 'E', 'c'), fc.uint8Array({ maxLength: 60 })), {
          maxLength: 30,
        }),
        fc.array(fc.nat(2_000), { maxLength: 80 }),
        (messages, cuts) => {
          const bytes = Buffer.concat(messages.map(([type, body]) => frame(type, Buffer.from(body))));
          const expected = messages.map(([type, body]) => ({
            type: type.charCodeAt(0),
            body: Buffer.from(body).toString('latin1'),
          }));
          assert.deepEqual(collect(new Framer(Infinity), chop(bytes, cuts)), expected);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('P7 of a row that is too large the large values are left out, however it is chopped', () => {
    const wal = Buffer.concat([Buffer.from('w'), Buffer.alloc(24)]);
    const large = 'x'.repeat(100_000);
    const row = frame('d', Buffer.concat([wal, insertMessage(7, ['1', null, large, '', 'k', large, null])]));
    const other = frame('d', Buffer.concat([wal, Buffer.from(`U${large}`)]));
    const small = frame('d', Buffer.from('z'));
    const bytes = Buffer.concat([small, row, other, small]);
    const kept = Buffer.concat([wal, insertMessage(7, ['1', null, null, '', 'k', null, null])]);
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 20 }), (cuts) => {
        const left: number[] = [];
        const seen: string[] = [];
        const framer = new Framer(50_000);
        for (const chunk of chop(bytes, cuts))
          framer.push(chunk, (_type, buffer, start, end, leftOutBytes) => {
            seen.push(buffer.toString('latin1', start, end));
            left.push(leftOutBytes);
          });
        assert.deepEqual(seen, ['z', kept.toString('latin1'), 'z']);
        assert.deepEqual(left, [0, 200_000, 0]);
      }),
      { numRuns: 100 },
    );
  });

  it('one byte at a time', () => {
    const bytes = Buffer.concat([
      frame('d', Buffer.from('abc')),
      frame('k', Buffer.alloc(0)),
      frame('d', Buffer.from('z')),
    ]);
    const seen = collect(
      new Framer(Infinity),
      Array.from(bytes, (byte) => Buffer.from([byte])),
    );
    assert.deepEqual(
      seen.map(({ body }) => body),
      ['abc', '', 'z'],
    );
  });

  it('P7 a message of 50 MB that spans 800 reads is copied once, not at every read', (t) => {
    const chunk = Buffer.alloc(65_536, 1);
    const header = Buffer.alloc(5, 'd');
    header.writeUInt32BE(chunk.length * 800 + 4, 1);
    const concat = t.mock.method(Buffer, 'concat');
    const framer = new Framer(Infinity);
    const sizes: number[] = [];
    framer.push(header, () => assert.fail('not complete'));
    for (let i = 0; i < 800; i++) framer.push(chunk, (_type, _buffer, start, end) => sizes.push(end - start));
    assert.deepEqual(sizes, [chunk.length * 800]);
    const copied = concat.mock.calls.reduce((sum, { result }) => sum + (result as Buffer).length, 0);
    assert.ok(copied < chunk.length * 800 * 1.1, `${copied} bytes copied`);
  });
});
