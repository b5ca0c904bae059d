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

function namesOf(entries: readonly Entry[]): string[] {
  return entries.map(({ message }) => message.type);
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

  test('P4 what later ones have passed is given up alone, and its late answers hit nobody', () => {
    const { window, settled, send, ack, nack } = setUp();
    for (const name of ['stuck', 'b', 'stuck too', 'd', 'e']) send(name);
    ack(2);
    ack(4);
    assert.deepEqual(namesOf(window.takePassed(() => true)), ['stuck', 'stuck too']);
    assert.equal(window.size, 1);
    ack(1);
    nack(3);
    assert.deepEqual(settled.splice(0), [
      ['b', 'durable'],
      ['d', 'durable'],
    ]);
    send('f');
    nack(3, true);
    assert.deepEqual(settled, []);
    ack(6, true);
    assert.deepEqual(settled, [
      ['e', 'durable'],
      ['f', 'durable'],
    ]);
  });

  test('P4 given up is only what is late, and only with an answer to a later one', () => {
    const { window, send, ack, nack } = setUp();
    for (const name of ['a', 'b', 'c', 'd']) send(name);
    ack(1);
    assert.deepEqual(
      window.takePassed(() => true),
      [],
      'an earlier one proves nothing',
    );
    nack(3);
    assert.deepEqual(
      window.takePassed(() => false),
      [],
    );
    assert.deepEqual(namesOf(window.takePassed(() => true)), ['b']);
    assert.deepEqual(
      window.takePassed(() => true),
      [],
      'nothing after it was answered',
    );
    assert.equal(window.oldest?.message.id, 'd');
  });

  test('P1 the late return of one that was given up is no proof against others, nor of the delivery of its twin', () => {
    const { window, settled, send, ack, giveBack } = setUp();
    for (const name of ['stuck', 'b', 'c']) send(name);
    ack(2);
    window.takePassed(() => true);
    giveBack('stuck');
    ack(3);
    assert.deepEqual(settled.splice(0), [
      ['b', 'durable'],
      ['c', 'durable'],
    ]);
    send('its twin', 'stuck');
    send('e');
    giveBack('stuck');
    ack(5, true);
    assert.deepEqual(settled, [
      ['its twin', 'return-ambiguous'],
      ['e', 'durable'],
    ]);
  });

  test('P7 what was given up is not remembered for ever', () => {
    const { window, settled, send, ack, giveBack } = setUp();
    send('stuck');
    for (let i = 0; i < 1_000; i++) send(`stuck ${i}`);
    send('last');
    ack(1_002);
    assert.equal(window.takePassed(() => true).length, 1_001);
    send('a');
    giveBack('stuck 0');
    giveBack('stuck');
    ack(1_003);
    assert.deepEqual(settled.slice(1), [['a', 'unroutable']], 'the first is forgotten');
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
