import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import type { OutboxEvent } from '../../../src/pipeline/capture/event.ts';
import { InFlightWindow } from '../../../src/pipeline/window.ts';
import { eventOf, transactionOf } from './builders.ts';

const NEVER = new AbortController().signal;

function sized(sizeBytes: number): OutboxEvent {
  return eventOf(1, transactionOf(), { sizeBytes });
}

async function isOpen(window: InFlightWindow): Promise<boolean> {
  const stop = new AbortController();
  let open = false;
  const waiting = window.room(stop.signal).then(() => (open = true));
  await Promise.resolve();
  await Promise.resolve();
  const answer = open;
  stop.abort();
  await waiting;
  return answer;
}

describe('InFlightWindow', () => {
  it('P7 counts events and bytes exactly, and comes back to nothing', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 10_000 })),
        fc.infiniteStream(fc.nat()),
        (sizes, picks) => {
          const window = new InFlightWindow({ maxEvents: 1e6, maxBytes: 1e12 });
          const held = sizes.map(sized);
          for (const event of held) window.enter(event);
          assert.equal(window.events, sizes.length);
          assert.ok(window.bytes >= sizes.reduce((sum, size) => sum + size, 0));
          for (const pick of picks) {
            if (held.length === 0) break;
            window.leave(held.splice(pick % held.length, 1)[0] as OutboxEvent);
          }
          assert.deepEqual([window.events, window.bytes], [0, 0]);
        },
      ),
    );
  });

  it('P7 is full at either limit', async () => {
    const byEvents = new InFlightWindow({ maxEvents: 2, maxBytes: 1e9 });
    byEvents.enter(sized(1));
    assert.equal(await isOpen(byEvents), true);
    byEvents.enter(sized(1));
    assert.equal(await isOpen(byEvents), false);
    const byBytes = new InFlightWindow({ maxEvents: 100, maxBytes: 5_000 });
    byBytes.enter(sized(10));
    assert.equal(await isOpen(byBytes), true);
    byBytes.enter(sized(5_000));
    assert.equal(await isOpen(byBytes), false);
  });

  it('opens when enough has left, not before', async () => {
    const window = new InFlightWindow({ maxEvents: 2, maxBytes: 1e9 });
    const events = [sized(1), sized(1), sized(1)];
    for (const event of events) window.enter(event);
    let open = false;
    const waiting = window.room(NEVER).then(() => (open = true));
    window.leave(events[0] as OutboxEvent);
    window.changed();
    for (let i = 0; i < 5; i++) await Promise.resolve();
    assert.equal(open, false);
    window.leave(events[1] as OutboxEvent);
    window.changed();
    await waiting;
    assert.equal(open, true);
  });

  it('opens when what else holds reading back has gone', async () => {
    const window = new InFlightWindow({ maxEvents: 2, maxBytes: 1e9 });
    let held = true;
    const waiting = window.room(NEVER, () => held);
    await Promise.resolve();
    held = false;
    window.changed();
    await waiting;
  });

  it('does not hold back what was aborted', async () => {
    const window = new InFlightWindow({ maxEvents: 1, maxBytes: 1e9 });
    window.enter(sized(1));
    await window.room(AbortSignal.abort());
    const stop = new AbortController();
    const waiting = window.room(stop.signal);
    stop.abort();
    await waiting;
    assert.equal(window.full, true);
  });

  it('an event larger than the window passes alone', () => {
    const window = new InFlightWindow({ maxEvents: 10, maxBytes: 1_000 });
    assert.equal(window.full, false);
    const giant = sized(1e9);
    window.enter(giant);
    assert.equal(window.full, true);
    window.leave(giant);
    assert.equal(window.full, false);
  });
});
