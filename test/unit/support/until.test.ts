import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../../support/until.ts';

test('until: returns the first value that is not false, null or undefined', async () => {
  const values = [false, undefined, null, 0];
  assert.equal(await until(() => values.shift(), { what: 'a value' }), 0);
});

test('until: says what it waited for and the last value', async () => {
  await assert.rejects(
    until(() => false, { timeoutMs: 30, what: 'the impossible' }),
    /not within 30 ms: the impossible; last value: false/,
  );
});

test('until: an error counts as "not yet", the last one is told', async () => {
  let calls = 0;
  const late = (): string => {
    calls++;
    if (calls < 3) throw new Error('too early');
    return 'there';
  };
  assert.equal(await until(late, { what: 'it' }), 'there');
  await assert.rejects(
    until(() => Promise.reject(new Error('refused')), { timeoutMs: 30, what: 'it' }),
    /last error: refused/,
  );
});
