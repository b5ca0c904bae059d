import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RelayError } from '../../../../../src/errors/errors.ts';
import { brokerError, connectError } from '../../../../../src/pipeline/publish/kafka/errors.ts';
import { answeredOutcome, topicOutcome } from '../../../../../src/pipeline/publish/kafka/outcome.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';

const message = makeMessage({ destination: 't', id: '1', body: Buffer.alloc(2000) });
const one = { topic: 't', partition: 3, messages: [message] };
const two = { ...one, messages: [message, message] };

test('P1 only error code 0 is durable; a partition that the answer leaves out is unknown', () => {
  assert.equal(answeredOutcome(0, one, 900).kind, 'durable');
  assert.equal(answeredOutcome(undefined, one, 900).kind, 'unknown');
  for (let code = -1; code < 130; code++) {
    if (code !== 0) assert.notEqual(answeredOutcome(code, one, 900).kind, 'durable', String(code));
  }
});

test('P1 errors that may pass are unknown, so that they are sent again for ever', () => {
  for (const code of [-1, 2, 3, 5, 6, 7, 8, 9, 13, 19, 20, 42, 56, 74, 75, 89, 999]) {
    assert.equal(answeredOutcome(code, one, 900).kind, 'unknown', String(code));
  }
});

test('P10 errors about the records are refused for good: one message as an event, several as a group', () => {
  for (const code of [10, 18, 32, 44, 87]) {
    const alone = answeredOutcome(code, one, 900);
    const together = answeredOutcome(code, two, 900);
    assert.ok(alone.kind === 'rejected' && alone.permanent && alone.scope === 'event', String(code));
    assert.ok(together.kind === 'rejected' && together.permanent && together.scope === 'group', String(code));
  }
});

test('P10 too large says the size, the limit and the remedy', () => {
  const outcome = answeredOutcome(10, one, 900_000);
  assert.ok(outcome.kind === 'rejected');
  assert.match(outcome.reason, new RegExp(`about ${message.sizeBytes} bytes`));
  assert.match(outcome.reason, /900000.*max\.message\.bytes/s);
});

test('P10 a topic that is missing or not for us may come: the destination is missing, not the event bad', () => {
  for (const code of [3, 29]) {
    const outcome = topicOutcome('orders', code);
    assert.ok(outcome.kind === 'rejected' && outcome.missingDestination === true && !outcome.permanent);
    assert.match(outcome.reason, /orders/);
  }
  const invalid = topicOutcome('no topic', 17);
  assert.ok(invalid.kind === 'rejected' && invalid.permanent);
  assert.equal(topicOutcome('orders', 5).kind, 'unknown');
});

test('every error of a broker has a code and an advice', () => {
  for (let code = -1; code < 130; code++) {
    const { code: name, advice } = brokerError(code);
    assert.match(name, /^[a-z0-9-]+$/);
    assert.match(advice, /^[A-Z].*\.$/);
  }
});

const CONNECT_ERRORS: readonly (readonly [object, string, string])[] = [
  [{ name: 'KafkaJSSASLAuthenticationError' }, 'stop', 'kafka-authentication'],
  [{ name: 'KafkaJSProtocolError', type: 'SASL_AUTHENTICATION_FAILED' }, 'stop', 'kafka-authentication'],
  [{ name: 'KafkaJSProtocolError', type: 'UNSUPPORTED_SASL_MECHANISM' }, 'stop', 'kafka-authentication'],
  [{ code: 'SELF_SIGNED_CERT_IN_CHAIN' }, 'stop', 'kafka-tls'],
  [{ code: 'CERT_HAS_EXPIRED' }, 'stop', 'kafka-tls'],
  [{ code: 'ERR_TLS_CERT_ALTNAME_INVALID' }, 'stop', 'kafka-tls'],
  [{ code: 'EPROTO' }, 'stop', 'kafka-tls'],
  [{ code: 'ECONNREFUSED' }, 'retry', 'kafka-unreachable'],
  [{ code: 'ENOTFOUND' }, 'retry', 'kafka-unreachable'],
  [{}, 'retry', 'kafka-unreachable'],
];

test('an error while connecting says whether a person is needed, and what to do', () => {
  for (const [parts, consequence, code] of CONNECT_ERRORS) {
    const error = connectError(Object.assign(new Error('as told'), parts), 'kafka:9092');
    assert.deepEqual([error.consequence, error.code], [consequence, code]);
    assert.match(error.message, /kafka:9092.*as told/);
    assert.ok(error.advice.length > 20);
  }
  const known = new RelayError('stop', 'x', 'y', { advice: 'z' });
  assert.equal(connectError(known, 'kafka:9092'), known);
});
