import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RoomGate } from '../../../../../src/pipeline/publish/kafka/room-gate.ts';

function gateWith(room: { free: boolean }): { gate: RoomGate; told: () => number } {
  let told = 0;
  const gate: RoomGate = new RoomGate(
    () => room.free && !gate.held,
    () => told++,
  );
  return { gate, told: () => told };
}

test('P10 only requests that are young hold back what is new: a hung broker slows nobody', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { gate } = gateWith({ free: true });
  gate.busy(1, true);
  assert.ok(gate.held);
  t.mock.timers.tick(200);
  assert.ok(!gate.held, 'the request to 1 is old');
  gate.busy(2, true);
  assert.ok(gate.held);
  gate.busy(2, false);
  assert.ok(!gate.held, 'as soon as 2 has answered, although 1 has not');
  gate.busy(2, true);
  t.mock.timers.tick(100);
  gate.busy(3, true);
  t.mock.timers.tick(100);
  assert.ok(gate.held, '3 is young');
  gate.busy(1, false);
  t.mock.timers.tick(100);
  assert.ok(!gate.held);
});

test('room that comes is told once, and not from within what made it', async () => {
  const room = { free: false };
  const { gate, told } = gateWith(room);
  gate.look();
  room.free = true;
  gate.tellSoon();
  gate.tellSoon();
  assert.equal(told(), 0);
  await Promise.resolve();
  assert.equal(told(), 1);
  gate.tell();
  assert.equal(told(), 1);
});
