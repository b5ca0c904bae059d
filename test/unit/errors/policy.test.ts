import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RelayError } from '../../../src/errors/errors.ts';
import { classify, listedCodes } from '../../../src/errors/policy.ts';

function failure(code: string, message = 'anything'): Error {
  return Object.assign(new Error(message), { code });
}

const named = (message: string): string => classify(new Error(message)).code;

/** One row for every code of the table: code, message, consequence, name. */
const EXPECTED: [code: string, message: string, consequence: string, name: string][] = [
  ['28P01', 'password authentication failed for user "x"', 'stop', 'credentials'],
  ['28', '', 'stop', 'client-refused'],
  ['28000', 'no pg_hba.conf entry', 'stop', 'client-refused'],
  ['3D000', 'database "x" does not exist', 'stop', 'database-missing'],
  ['08P01', 'unsupported startup parameter: options', 'retry', 'startup-parameter'],
  ['08P01', 'invalid message format', 'retry', 'connection-lost'],
  ['08', '', 'retry', 'connection-lost'],
  ['08006', 'connection failure', 'retry', 'connection-lost'],
  ['57P01', 'terminating connection due to administrator command', 'retry', 'server-stopping'],
  ['57P02', '', 'retry', 'server-stopping'],
  ['57P03', 'the database system is starting up', 'retry', 'server-starting'],
  ['57P04', '', 'stop', 'database-missing'],
  ['57P05', '', 'retry', 'server-stopping'],
  ['57014', 'canceling statement due to statement timeout', 'retry', 'statement-timeout'],
  ['53300', 'sorry, too many clients already', 'retry', 'too-many-connections'],
  ['53', '', 'retry', 'out-of-resources'],
  ['53100', 'disk full', 'retry', 'out-of-resources'],
  ['53400', 'all replication slots are in use', 'retry', 'no-free-slot'],
  ['53400', 'something else', 'retry', 'out-of-resources'],
  ['58P01', 'requested WAL segment 000000010000000000000002 has already been removed', 'retry', 'slot-lost'],
  ['58P01', 'could not open file', 'retry', 'internal'],
  ['58', '', 'retry', 'internal'],
  ['XX000', 'requested WAL segment 00 has already been removed', 'retry', 'slot-lost'],
  ['XX', '', 'retry', 'internal'],
  ['XX001', 'invalid page', 'retry', 'data-corrupted'],
  ['XX002', '', 'retry', 'data-corrupted'],
  ['55000', 'can no longer access replication slot "outbox_relay"', 'retry', 'slot-lost'],
  ['55000', 'can no longer get changes from replication slot "outbox_relay"', 'retry', 'slot-lost'],
  ['55000', 'cannot read from logical replication slot "outbox_relay"', 'retry', 'slot-lost'],
  ['55000', 'logical decoding requires "wal_level" >= "logical"', 'stop', 'wal-level'],
  ['55000', 'anything', 'retry', '55000'],
  ['55006', 'replication slot "outbox_relay" is active for PID 1', 'retry', 'slot-active'],
  ['42704', 'replication slot "outbox_relay" does not exist', 'retry', 'slot-missing'],
  ['42704', 'publication "outbox_relay" does not exist', 'stop', 'publication-missing'],
  ['42704', 'type "x" does not exist', 'stop', 'object-missing'],
  ['42710', 'replication slot "outbox_relay" already exists', 'retry', 'slot-exists'],
  ['42P01', 'relation "outbox" does not exist', 'stop', 'table-missing'],
  ['3F000', '', 'stop', 'table-missing'],
  ['42703', 'column "seq" does not exist', 'stop', 'column-missing'],
  ['42883', '', 'stop', 'function-missing'],
  ['42501', 'permission denied to start WAL sender', 'stop', 'privilege'],
  ['42501', 'permission denied for table outbox', 'stop', 'privilege'],
  ['25006', 'cannot execute INSERT in a read-only transaction', 'retry', 'read-only'],
  ['40001', '', 'retry', 'conflict'],
  ['40P01', 'deadlock detected', 'retry', 'conflict'],
  ['55P03', 'canceling statement due to lock timeout', 'retry', 'conflict'],
  ['25P03', '', 'retry', 'idle-in-transaction'],
  ['ECONNREFUSED', '', 'retry', 'refused'],
  ['EHOSTUNREACH', '', 'retry', 'unreachable'],
  ['ENETUNREACH', '', 'retry', 'unreachable'],
  ['EHOSTDOWN', '', 'retry', 'unreachable'],
  ['ENETDOWN', '', 'retry', 'unreachable'],
  ['ETIMEDOUT', '', 'retry', 'timeout'],
  ['ESOCKETTIMEDOUT', '', 'retry', 'timeout'],
  ['ECONNRESET', '', 'retry', 'connection-lost'],
  ['EPIPE', '', 'retry', 'connection-lost'],
  ['ECONNABORTED', '', 'retry', 'connection-lost'],
  ['ENOTFOUND', '', 'retry', 'name-unknown'],
  ['EAI_AGAIN', '', 'retry', 'name-unknown'],
  ['EAI_FAIL', '', 'retry', 'name-unknown'],
  ['EMFILE', '', 'retry', 'out-of-descriptors'],
  ['ENFILE', '', 'retry', 'out-of-descriptors'],
  ['SELF_SIGNED_CERT_IN_CHAIN', '', 'stop', 'certificate'],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', '', 'stop', 'certificate'],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', '', 'stop', 'certificate'],
  ['UNABLE_TO_GET_ISSUER_CERT', '', 'stop', 'certificate'],
  ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', '', 'stop', 'certificate'],
  ['CERT_HAS_EXPIRED', '', 'stop', 'certificate'],
  ['CERT_NOT_YET_VALID', '', 'stop', 'certificate'],
  ['CERT_SIGNATURE_FAILURE', '', 'stop', 'certificate'],
  ['ERR_TLS_CERT_ALTNAME_INVALID', '', 'stop', 'certificate'],
  ['ERR_OSSL_X509_KEY_VALUES_MISMATCH', '', 'stop', 'certificate'],
];

test('every code of the table has the consequence that is written down here, and no code is forgotten', () => {
  for (const [code, message, consequence, name] of EXPECTED) {
    const state = code.length === 2 ? `${code}ZZZ` : code;
    const verdict = classify(failure(state, message));
    assert.deepEqual([verdict.consequence, verdict.code], [consequence, name], `${code} ${message}`);
    assert.match(verdict.advice, /^[A-Z`].*\.$|\?$/u, `${code}: advice is one sentence`);
  }
  const covered = new Set(EXPECTED.map(([code]) => code));
  assert.deepEqual(
    listedCodes().filter((code) => !covered.has(code)),
    [],
  );
});

test('what is not listed is retried, whatever was thrown', () => {
  for (const thrown of [failure('99999'), failure('EWEIRD'), new Error('x'), 'text', undefined, null, 7])
    assert.equal(classify(thrown).consequence, 'retry', String(thrown));
  assert.equal(classify(failure('99999')).code, '99999');
  assert.equal(classify(new Error('x')).code, 'unknown');
});

test('errors of the driver without a code are known by their message', () => {
  assert.equal(named('The server does not support SSL connections'), 'tls-unsupported');
  assert.equal(named('SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string'), 'credentials');
  assert.equal(
    named('SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a non-empty string'),
    'credentials',
  );
  assert.equal(named('timeout expired'), 'timeout');
  assert.equal(named('Connection terminated unexpectedly'), 'connection-lost');
});

test('a classified error stays what it is, also as a cause', () => {
  const relay = new RelayError('park', 'too-large', 'no', { advice: 'Less.' });
  const expected = { consequence: 'park', code: 'too-large', advice: 'Less.' };
  assert.deepEqual(classify(relay), expected);
  assert.deepEqual(classify(new Error('outer', { cause: new Error('middle', { cause: relay }) })), expected);
});

test('the code is found in causes and in the addresses of an aggregate; a circle of causes ends', () => {
  assert.equal(classify(new Error('outer', { cause: failure('28P01') })).code, 'credentials');
  assert.equal(
    classify(new AggregateError([failure('ECONNREFUSED'), failure('EHOSTUNREACH')])).code,
    'refused',
  );
  const circle = new Error('a');
  circle.cause = new Error('b', { cause: circle });
  assert.equal(classify(circle).code, 'unknown');
});
