import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { parseUtcTimestamp } from '../../../../src/pipeline/envelope/timestamp.ts';

/** As PostgreSQL prints it: no trailing zeros in the fraction, and none at all for whole seconds. */
function printed(date: Date, micros: number, zone: string): string {
  const fraction = `${String(date.getUTCMilliseconds()).padStart(3, '0')}${String(micros).padStart(3, '0')}`;
  const digits = fraction.replace(/0+$/, '');
  return `${date.toISOString().slice(0, 19).replace('T', ' ')}${digits === '' ? '' : `.${digits}`}${zone}`;
}

describe('parseUtcTimestamp', () => {
  it('P2 agrees with the general parser for every time that PostgreSQL prints', () => {
    const dates = fc.date({ min: new Date('1000-01-01'), max: new Date('9999-12-31'), noInvalidDate: true });
    const micros = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 999 }));
    fc.assert(
      fc.property(dates, micros, fc.constantFrom('+00', ''), (date, rest, zone) => {
        const text = printed(date, rest, zone);
        assert.equal(parseUtcTimestamp(text), date.getTime(), text);
        // The same day again takes the short way.
        assert.equal(parseUtcTimestamp(text), date.getTime(), text);
      }),
      { numRuns: 2_000 },
    );
  });

  it('what is no such time is NaN', () => {
    for (const text of [
      '',
      'infinity',
      '-infinity',
      '0044-03-15 12:00:00+00 BC',
      '2026-01-01',
      '2026-01-01T00:00:00Z',
    ])
      assert.equal(parseUtcTimestamp(text), Number.NaN, text);
  });
});
