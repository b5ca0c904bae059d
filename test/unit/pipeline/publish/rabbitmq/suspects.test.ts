import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ROUTE_REFUSED } from '../../../../../src/pipeline/publish/missing-targets.ts';
import { DURABLE } from '../../../../../src/pipeline/publish/publisher.ts';
import type { Outcome } from '../../../../../src/pipeline/publish/publisher.ts';
import { Suspects } from '../../../../../src/pipeline/publish/rabbitmq/suspects.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';

const REFUSED: Outcome = { kind: 'rejected', code: 'x', reason: 'x', permanent: false, scope: 'event' };
const UNKNOWN: Outcome = { kind: 'unknown', code: 'x', reason: 'x' };

function message(id: string, destination = 'x') {
  return makeMessage({ destination, id });
}

function on(routingKey: string) {
  return makeMessage({ destination: 'x', id: routingKey, routingKey });
}

describe('suspects', () => {
  test('P10 all that were outstanding are suspects until each has shown what it does', () => {
    const suspects = new Suspects();
    const [good, bad, stranger] = [message('good'), message('bad'), message('stranger')];
    suspects.channelClosed({ kind: 'some-message' }, [good, bad]);
    assert.deepEqual(
      [good, bad, stranger].map((each) => suspects.has(each)),
      [true, true, false],
    );
    suspects.settled(good, UNKNOWN);
    assert.ok(suspects.has(good));
    suspects.settled(good, DURABLE);
    suspects.settled(bad, REFUSED);
    assert.deepEqual(
      [good, bad].map((each) => suspects.has(each)),
      [false, true],
    );
  });

  test('P10 a closed connection: everybody goes alone, until as many as were outstanding have an outcome', () => {
    const suspects = new Suspects();
    suspects.connectionClosed({ kind: 'some-message' }, [message('a'), message('b')]);
    const stranger = message('stranger');
    assert.ok(suspects.has(stranger));
    suspects.settled(stranger, UNKNOWN);
    suspects.settled(stranger, DURABLE);
    assert.ok(suspects.has(message('another')));
    assert.ok(suspects.quarantine);
    suspects.settled(message('another'), DURABLE);
    assert.ok(!suspects.has(stranger) && !suspects.quarantine);
  });

  test('where everyone is a suspect, no outcome clears anybody', () => {
    const suspects = new Suspects(true);
    const each = message('m');
    suspects.settled(each, DURABLE);
    assert.ok(suspects.has(each) && !suspects.quarantine);
  });

  test('P10 a route that was refused: its later messages go alone until one arrives, those of other routes never', () => {
    const suspects = new Suspects();
    const refused: Outcome = { ...REFUSED, code: ROUTE_REFUSED, missingDestination: true };
    suspects.settled(on('a'), refused);
    assert.deepEqual([suspects.has(on('a')), suspects.has(on('b'))], [true, false]);
    suspects.settled(on('a'), UNKNOWN);
    assert.ok(suspects.has(on('a')));
    suspects.settled(on('a'), DURABLE);
    assert.ok(!suspects.has(on('a')));
  });

  test('an exchange that refused is asked alone, and trusted again after a while', () => {
    const suspects = new Suspects();
    suspects.channelClosed({ kind: 'refused-exchange', exchange: 'secret' }, []);
    const ask = (): boolean => suspects.has(message('m', 'secret'));
    assert.ok(!suspects.has(message('m', 'other')));
    suspects.settled(message('m', 'secret'), REFUSED);
    for (let i = 0; i < 100; i++) {
      assert.ok(ask());
      suspects.settled(message('m', 'secret'), DURABLE);
    }
    assert.ok(!ask());
  });

  test('an outage and a missing exchange make nobody suspect', () => {
    const suspects = new Suspects();
    const each = message('m');
    suspects.channelClosed({ kind: 'missing-exchange' }, [each]);
    suspects.connectionClosed({ kind: 'nobody' }, [each]);
    assert.ok(!suspects.has(each));
    suspects.channelClosed({ kind: 'size', maxBytes: 10 }, [each]);
    assert.ok(!suspects.has(each));
    assert.equal(suspects.maxBodyBytes, 10);
  });

  test('P10 a limit that was learned does not outlive the connection: it may have been raised', () => {
    const suspects = new Suspects();
    suspects.channelClosed({ kind: 'size', maxBytes: 10 }, []);
    suspects.connected();
    assert.equal(suspects.maxBodyBytes, Number.POSITIVE_INFINITY);
  });

  test('P10 one that is refused again and again goes alone, one whose exchange is missing need not', () => {
    const suspects = new Suspects();
    const [refused, missing] = [message('refused'), message('missing')];
    suspects.settled(refused, { ...REFUSED, code: 'access-refused', missingDestination: true });
    suspects.settled(missing, { ...REFUSED, code: 'exchange-missing', missingDestination: true });
    assert.deepEqual(
      [refused, missing].map((each) => suspects.has(each)),
      [true, false],
    );
  });
});
