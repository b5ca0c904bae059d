import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { PassThrough, Writable } from 'node:stream';
import { describe, test } from 'node:test';
import { RelayError } from '../../../../../src/errors/errors.ts';
import type { Message } from '../../../../../src/pipeline/envelope/message.ts';
import type { Outcome } from '../../../../../src/pipeline/publish/publisher.ts';
import { createStdoutPublisher, formatLine } from '../../../../../src/pipeline/publish/stdout/publisher.ts';
import { publisherContract } from '../../../../support/publisher-contract.ts';
import type { Received } from '../../../../support/publisher-contract.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';
import { until } from '../../../../support/until.ts';

interface Line {
  id: string;
  key: string | null;
  type: string;
  contentType: string;
  timestamp: string;
  headers: Record<string, string>;
  payload: string | null;
  encoding?: 'base64';
}

function toReceived(text: string): Received {
  const { id, key, type, contentType, timestamp, headers, payload, encoding } = JSON.parse(text) as Line;
  const body = payload === null ? null : Buffer.from(payload, encoding ?? 'utf8');
  return { id, key, type, contentType, headers, body, timestampMs: Date.parse(timestamp) };
}

publisherContract('stdout', {
  subject: async () => {
    const chunks: Buffer[] = [];
    const stream = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        chunks.push(chunk);
        setImmediate(done);
      },
    });
    return await Promise.resolve({
      destination: 'events',
      create: (events) => createStdoutPublisher(stream, events),
      received: async () => {
        const lines = Buffer.concat(chunks).toString().split('\n');
        return await Promise.resolve(lines.filter((line) => line !== '').map(toReceived));
      },
      remove: async () => {
        chunks.length = 0;
        await Promise.resolve();
      },
    });
  },
  largeBytes: 2_000_000,
  keepsNull: true,
  // The stream above keeps everything in memory.
  many: 500,
});

function start(stream: Writable) {
  const fatal: Error[] = [];
  const rooms = { calls: 0 };
  const publisher = createStdoutPublisher(stream, {
    onRoom: () => rooms.calls++,
    onFatal: (error) => fatal.push(error),
    onConnection: () => undefined,
  });
  const outcomes = new Map<Message, Outcome>();
  const send = (...messages: Message[]): void =>
    publisher.publish(messages, (each, outcome) => outcomes.set(each, outcome));
  return { publisher, fatal, rooms, outcomes, send };
}

function message(id: string, body: Buffer | null = Buffer.from('{}')): Message {
  return makeMessage({ destination: 'events', id, body });
}

describe('stdout publisher', () => {
  test('P2 one line a message; JSON is not printed again', () => {
    const line = formatLine(message('a', Buffer.from('{"n": 9007199254740993,\n "n":1}')));
    assert.equal(line.indexOf('\n'), line.length - 1);
    assert.ok(line.includes(String.raw`"payload":"{\"n\": 9007199254740993,\n \"n\":1}"`));
    assert.match(formatLine(message('b', Buffer.from([0xff]))), /"payload":"\/w==","encoding":"base64"}/);
  });

  test('P7 a reader that stops: no room until it goes on, nothing durable before', async () => {
    const stream = new PassThrough({ highWaterMark: 1000 });
    const { publisher, rooms, outcomes, send } = start(stream);
    await publisher.connect(AbortSignal.timeout(1000));
    await until(() => rooms.calls === 1, { what: 'room' });
    const sent = Array.from({ length: 20 }, (_, at) => message(`${at}`, Buffer.alloc(1000, 'x')));
    for (const each of sent) if (publisher.room() > 0) send(each);
    assert.equal(publisher.room(), 0);
    const calls = rooms.calls;
    stream.resume();
    await until(() => rooms.calls > calls && outcomes.size > 0, { what: 'room again' });
    assert.ok([...outcomes.values()].every(({ kind }) => kind === 'durable'));
    await publisher.close(1000);
    assert.equal(stream.listenerCount('error') + stream.listenerCount('drain'), 0);
  });

  test('P1 the reader is gone (EPIPE): unknown, told to halt, no crash', async () => {
    const reader = spawn('true', { stdio: ['pipe', 'ignore', 'ignore'] });
    await once(reader, 'exit');
    const { publisher, fatal, outcomes, send } = start(reader.stdin);
    await publisher.connect(AbortSignal.timeout(1000)).catch((error: unknown) => fatal.push(error as Error));
    const sent = [message('a'), message('b')];
    send(...sent);
    await until(() => outcomes.size === 2 && fatal.length > 0, { what: 'the loss' });
    assert.ok([...outcomes.values()].every(({ kind }) => kind === 'unknown'));
    assert.ok(fatal[0] instanceof RelayError && fatal[0].code === 'stdout-closed');
    assert.equal(publisher.room(), 0);
    await publisher.close(100);
  });

  test('P1 a write that fails later, and close while one is under way', async () => {
    const pending: ((error?: Error) => void)[] = [];
    const stream = new Writable({ write: (_chunk, _encoding, done) => pending.push(done) });
    const { publisher, fatal, outcomes, send } = start(stream);
    await publisher.connect(AbortSignal.timeout(1000));
    send(message('a'));
    await publisher.close(10);
    assert.deepEqual(
      [...outcomes.values()].map(({ kind }) => kind),
      ['unknown'],
    );
    for (const done of pending) done(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
    await until(() => stream.closed, { what: 'the failure of the stream' });
    assert.equal(outcomes.size, 1);
    assert.deepEqual(fatal, []);
  });

  test('a closed stream is refused when connecting', async () => {
    const stream = new PassThrough();
    stream.destroy();
    const { publisher } = start(stream);
    await assert.rejects(publisher.connect(AbortSignal.timeout(1000)), { code: 'stdout-closed' });
  });
});
