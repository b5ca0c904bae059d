import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  blameOf,
  blockedTooLong,
  confirmTimeout,
  connectError,
  culpritOutcome,
  lostOutcome,
} from '../../../../../src/pipeline/publish/rabbitmq/errors.ts';

function withCode(code: string | number, text = 'text'): Error {
  return Object.assign(new Error(text), { code });
}

describe('errors of RabbitMQ', () => {
  const CONNECT: readonly (readonly [Error, string, string])[] = [
    [withCode('ECONNREFUSED'), 'retry', 'connection-refused'],
    [withCode('ENOTFOUND'), 'retry', 'host-not-found'],
    [withCode('ECONNRESET'), 'retry', 'connection-reset'],
    [withCode('CERT_HAS_EXPIRED'), 'stop', 'rabbitmq-tls-certificate'],
    [withCode('ERR_SSL_WRONG_VERSION_NUMBER'), 'stop', 'rabbitmq-tls'],
    [
      new Error('Handshake terminated by server: 403 (ACCESS-REFUSED) with message "…"'),
      'stop',
      'rabbitmq-authentication',
    ],
    [new Error('SASL mechanism EXTERNAL is not provided by the server'), 'stop', 'rabbitmq-mechanism'],
    [new Error('Expected ConnectionOpenOk; got <ConnectionClose channel:0>'), 'stop', 'rabbitmq-vhost'],
    [new Error('no connection within 10000 ms'), 'retry', 'connect-timeout'],
    [new Error('no answer within 10000 ms'), 'retry', 'connection-lost'],
    [new Error('Socket closed abruptly during opening handshake'), 'retry', 'connection-lost'],
    [new Error('never seen before'), 'retry', 'connection-lost'],
  ];
  for (const [error, consequence, code] of CONNECT) {
    test(`connecting, ${code}: ${error.message}`, () => {
      const found = connectError(error, 'host:5672', false);
      assert.deepEqual([found.consequence, found.code], [consequence, code]);
      assert.ok(found.advice.length > 10);
      assert.match(found.message, /^RabbitMQ at host:5672: /);
      assert.equal(found.cause, error);
    });
  }

  test('a virtual host that was there before is tried again', () => {
    const error = new Error('Expected ConnectionOpenOk; got <ConnectionClose channel:0>');
    assert.equal(connectError(error, 'host', true).consequence, 'retry');
  });

  test('P10 only the text of RabbitMQ tells whom a closure is about', () => {
    const kinds = [
      withCode(
        404,
        `Channel closed by server: 404 (NOT-FOUND) with message "NOT_FOUND - no exchange 'x' in vhost '/'"`,
      ),
      withCode(403, `ACCESS_REFUSED - write access to exchange 'orders' in vhost '/' refused for user 'u'`),
      withCode(
        403,
        `ACCESS_REFUSED - access to topic 'a.b' in exchange 'orders' in vhost '/' refused for user 'u'`,
      ),
      withCode(406, 'PRECONDITION_FAILED - message size 100001 is larger than configured max size 100000'),
      withCode(406, 'PRECONDITION_FAILED - invalid message'),
      withCode(501, 'FRAME_ERROR'),
      withCode(541, 'INTERNAL_ERROR'),
      withCode(320, 'CONNECTION_FORCED'),
      withCode('ECONNRESET'),
    ].map(blameOf);
    assert.deepEqual(kinds, [
      { kind: 'missing-exchange' },
      { kind: 'refused-exchange', exchange: 'orders' },
      { kind: 'some-message' },
      { kind: 'size', maxBytes: 100_000 },
      { kind: 'some-message' },
      { kind: 'some-message' },
      { kind: 'some-message' },
      { kind: 'nobody' },
      { kind: 'nobody' },
    ]);
  });

  test('P1 an outage rejects nothing, also not a message that was alone', () => {
    for (const error of [withCode(320), withCode('EPIPE'), new Error('Heartbeat timeout')]) {
      assert.equal(culpritOutcome(error).kind, 'unknown');
      assert.equal(lostOutcome(error).kind, 'unknown');
    }
  });

  test('P10 a crash inside RabbitMQ makes a suspect of a message, and never parks it', () => {
    const outcome = culpritOutcome(withCode(541, 'Connection closed: 541 (INTERNAL-ERROR)'));
    assert.deepEqual(
      [outcome.kind, outcome.kind === 'unknown' && outcome.code],
      ['unknown', 'internal-error'],
    );
  });

  test('a late confirm is no wrong address: a code and an advice of its own', () => {
    for (const [error, code] of [
      [confirmTimeout(30_000), 'confirm-timeout'],
      [blockedTooLong(), 'connection-blocked'],
    ] as const) {
      assert.equal(blameOf(error).kind, 'nobody');
      for (const outcome of [lostOutcome(error), culpritOutcome(error)]) {
        assert.ok(outcome.kind === 'unknown');
        assert.equal(outcome.code, code);
        assert.ok(outcome.reason.startsWith(`${error.message}. `));
        assert.ok(outcome.reason.endsWith(error.advice));
        assert.ok(!outcome.reason.includes('RABBITMQ_URL'));
      }
    }
    assert.equal(confirmTimeout(30_000).message, 'no confirm within 30000 ms');
  });

  test('P10 the culprit is refused: for good, or with the grace of a missing destination', () => {
    const missing = culpritOutcome(withCode(404));
    assert.ok(missing.kind === 'rejected' && missing.missingDestination === true && !missing.permanent);
    const invalid = culpritOutcome(withCode(406));
    assert.ok(invalid.kind === 'rejected' && invalid.permanent);
    const refused = culpritOutcome(withCode(403));
    assert.ok(refused.kind === 'rejected' && !refused.permanent && refused.missingDestination === true);
  });
});
