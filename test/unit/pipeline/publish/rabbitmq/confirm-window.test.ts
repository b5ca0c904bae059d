import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, test } from 'node:test';
import type { ConfirmChannel } from 'amqplib';
import type { Outcome } from '../../../../../src/pipeline/publish/publisher.ts';
import { ConfirmWindow } from '../../../../../src/pipeline/publish/rabbitmq/confirm-window.ts';
import type { OnConfirm } from '../../../../../src/pipeline/publish/rabbitmq/confirm-reader.ts';
import type { Entry, Wire } from '../../../../../src/pipeline/publish/rabbitmq/confirm-window.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';

/** A channel on which the test plays the broker. */
class FakeChannel extends EventEmitter {
  readonly ch = 1;
}

function setUp() {
  const channel = new FakeChannel();
  let confirm: OnConfirm | undefined;
  const wire: Wire = {
    writer: { put: () => undefined },
    reader: {
      watch: (_, onConfirm) => {
        confirm = onConfirm;
        return () => (confirm = undefined);
      },
    },
  };
  const settled: [string, string][] = [];
  const closed: Error[] = [];
  const window = new ConfirmWindow(channel as unknown as ConfirmChannel, wire, {
    settle: (entry, outcome) => settled.push([entry.message.type, codeOf(outcome)]),
    onClosed: (error) => closed.push(error),
  });
  /** `name` is the type; the id may be the same for many. */
  const send = (name: string, id = name): void => {
    const message = makeMessage({ destination: 'x', id, type: name, key: 'k' });
    const entry: Entry = { message, onOutcome: () => undefined, sentAtMs: 0, verdict: undefined };
    assert.equal(window.send(entry), undefined);
  };
  const ack = (tag: number, multiple = false): void => confirm?.(tag, multiple, true);
  const nack = (tag: number, multiple = false): void => confirm?.(tag, multiple, false);
  const giveBack = (messageId: string, routingKey = 'k'): boolean =>
    channel.emit('return', {
      fields: { exchange: 'x', routingKey, replyText: 'NO_ROUTE' },
      properties: { messageId },
    });
  return { channel, window, settled, closed, send, ack, nack, giveBack };
}

function codeOf(outcome: Outcome): string {
  return outcome.kind === 'durable' ? 'durable' : outcome.code;
}

describe('confirm window', () => {
  test('confirms out of order, several at once, and none twice', () => {
    const { window, settled, send, ack } = setUp();
    for (const name of ['a', 'b', 'c', 'd', 'e']) send(name);
    ack(3);
    ack(4, true);
    ack(4, true);
    ack(3);
    assert.deepEqual(
      settled.map(([name]) => name),
      ['c', 'a', 'b', 'd'],
    );
    assert.equal(window.size, 1);
    ack(5);
    assert.equal(window.size, 0);
  });

  test('a nack of several is unknown for each', () => {
    const { settled, send, nack } = setUp();
    for (const name of ['a', 'b', 'c']) send(name);
    nack(2, true);
    assert.deepEqual(settled, [
      ['a', 'nack'],
      ['b', 'nack'],
    ]);
  });

  test('P1 the acknowledgement of what came back is no delivery', () => {
    const { settled, send, ack, giveBack } = setUp();
    for (const name of ['a', 'b', 'c']) send(name);
    giveBack('b');
    ack(3, true);
    assert.deepEqual(settled, [
      ['a', 'durable'],
      ['b', 'unroutable'],
      ['c', 'durable'],
    ]);
  });

  test('P1 of twins with one id none is durable when only one came back', () => {
    const { settled, send, ack, giveBack } = setUp();
    send('first', 'same');
    send('other');
    send('second', 'same');
    giveBack('same');
    ack(3, true);
    assert.deepEqual(settled, [
      ['first', 'unroutable'],
      ['other', 'durable'],
      ['second', 'return-ambiguous'],
    ]);
  });

  test('P1 each of the twins came back', () => {
    const { settled, send, ack, giveBack } = setUp();
    send('first', 'same');
    send('second', 'same');
    giveBack('same');
    giveBack('same');
    ack(2, true);
    assert.deepEqual(
      settled.map(([, code]) => code),
      ['unroutable', 'unroutable'],
    );
  });

  test('P1 a return that fits nothing makes nothing durable', () => {
    const { settled, send, ack, giveBack } = setUp();
    send('a');
    send('b');
    giveBack('nobody');
    ack(2, true);
    assert.ok(settled.every(([, code]) => code !== 'durable'));
  });

  test('only a closure by the broker is told; what is outstanding is handed out in order', () => {
    const { channel, window, closed, send } = setUp();
    for (const name of ['a', 'b']) send(name);
    channel.emit('close');
    assert.equal(closed.length, 0);
    channel.emit('error', new Error('404'));
    channel.emit('close');
    assert.equal(closed.length, 1);
    assert.deepEqual(
      window.takeAll().map(({ message }) => message.id),
      ['a', 'b'],
    );
    assert.equal(window.size, 0);
  });
});
