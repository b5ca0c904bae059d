import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { describe, it } from 'node:test';
import { CopyBothSocket } from '../../../../../src/pipeline/capture/streaming/copy-both-socket.ts';

/** Both ends in one: `push` is what the server sends, `written` what it receives. */
function pair(): { stream: Duplex; written: Buffer[] } {
  const written: Buffer[] = [];
  const stream = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      written.push(chunk);
      done();
    },
  });
  return { stream, written };
}

const FRAME = Buffer.from([0x64, 0, 0, 0, 5, 7]);

function bodies(): { seen: number[]; onFrame: (type: number, buffer: Buffer, start: number) => void } {
  const seen: number[] = [];
  return { seen, onFrame: (_type, buffer, start) => seen.push(buffer[start] as number) };
}

describe('CopyBothSocket', () => {
  it('frames what has arrived, and waits for more', async () => {
    const { stream } = pair();
    const socket = new CopyBothSocket(stream, Infinity);
    const { seen, onFrame } = bodies();
    stream.push(Buffer.concat([FRAME, FRAME]));
    await socket.read(onFrame);
    const next = socket.read(onFrame);
    stream.push(FRAME);
    await next;
    assert.deepEqual(seen, [7, 7, 7]);
    socket.destroy();
  });

  it('P1 what arrived before the connection broke is read before its error is thrown', async () => {
    const { stream } = pair();
    const socket = new CopyBothSocket(stream, Infinity);
    const { seen, onFrame } = bodies();
    stream.push(FRAME);
    socket.fail(new Error('reset'));
    await socket.read(onFrame);
    await assert.rejects(socket.read(onFrame), /reset/);
    assert.deepEqual(seen, [7]);
  });

  it('the end of the connection is an error that is retried', async () => {
    const { stream } = pair();
    const socket = new CopyBothSocket(stream, Infinity);
    stream.push(null);
    await assert.rejects(
      socket.read(() => undefined),
      /closed the replication connection/,
    );
  });

  it('P4 an interrupted read ends, and positions are still acknowledged: the drain needs that', async () => {
    const { stream, written } = pair();
    const socket = new CopyBothSocket(stream, Infinity);
    const stopping = new AbortController();
    const reading = socket.read(() => undefined, stopping.signal);
    stopping.abort();
    socket.wakeReader();
    await reading;
    socket.sendCopyData(Buffer.from([0x72]));
    assert.deepEqual(Buffer.concat(written), Buffer.from([0x64, 0, 0, 0, 5, 0x72]));
    socket.destroy();
  });

  it('a broken connection is not written to', async () => {
    const { stream, written } = pair();
    const socket = new CopyBothSocket(stream, Infinity);
    socket.fail(new Error('broken'));
    socket.sendCopyData(Buffer.from([0x72]));
    await assert.rejects(
      socket.read(() => undefined),
      /broken/,
    );
    assert.deepEqual(written, []);
    socket.destroy();
  });
});
