import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { orAborted, pause, within } from '../../../src/lifecycle/wait.ts';

const never = new Promise<never>(() => undefined);

describe('Waiting', () => {
  it('a pause ends with its signal, without an error; also one that came before', async () => {
    const stop = new AbortController();
    const pausing = pause(3_600_000, stop.signal);
    stop.abort();
    await pausing;
    await pause(3_600_000, stop.signal);
  });

  it('a promise in time gives its value or its error, a late one what was agreed for that', async () => {
    assert.equal(await within(Promise.resolve(1), 3_600_000, () => 2), 1);
    assert.equal(await within(never, 1, () => 2), 2);
    await assert.rejects(
      within(Promise.reject(new RangeError('no')), 3_600_000, () => 2),
      RangeError,
    );
    await assert.rejects(
      within(never, 1, () => {
        throw new RangeError('late');
      }),
      RangeError,
    );
  });

  it('an abort ends the waiting for work, with its reason; what the work does later is nobody’s error', async () => {
    const stop = new AbortController();
    const { promise, reject } = Promise.withResolvers<number>();
    const waiting = orAborted(promise, stop.signal);
    stop.abort(new RangeError('stopped'));
    await assert.rejects(waiting, RangeError);
    reject(new Error('later'));
    await pause(1, new AbortController().signal);
    await assert.rejects(orAborted(Promise.resolve(1), stop.signal), RangeError);
    assert.equal(await orAborted(Promise.resolve(1), new AbortController().signal), 1);
  });
});
