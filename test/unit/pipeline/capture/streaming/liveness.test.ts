import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { evaluateLiveness } from '../../../../../src/pipeline/capture/streaming/liveness.ts';

const DEADLINE = 60_000;

describe('liveness', () => {
  it('every combination of silence, asking and held reading has its verdict', () => {
    const silences = [0, 19_999, 20_000, 40_000, 59_999, 60_000, 1_000_000];
    const table = silences.flatMap((silentMs) =>
      [0, 19_999, 20_000].flatMap((askedAgoMs) =>
        [false, true].map((readingHeld) => {
          const verdict = evaluateLiveness({
            nowMs: 2e6,
            heardAtMs: 2e6 - silentMs,
            askedAtMs: 2e6 - askedAgoMs,
            deadlineMs: DEADLINE,
            readingHeld,
          });
          return `${silentMs} ${askedAgoMs} ${readingHeld ? 'held' : 'reading'} ${verdict}`;
        }),
      ),
    );
    const expected = silences.flatMap((silentMs) =>
      [0, 19_999, 20_000].flatMap((askedAgoMs) => {
        const asks = silentMs >= 20_000 && askedAgoMs >= 20_000;
        const verdict = silentMs >= 60_000 ? 'dead' : asks ? 'ask' : 'alive';
        return [`${silentMs} ${askedAgoMs} reading ${verdict}`, `${silentMs} ${askedAgoMs} held alive`];
      }),
    );
    assert.deepEqual(table, expected);
  });

  it('P1 a silent server is asked at least twice before it is given up', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1_000, max: 10_000 }), (tickMs) => {
        let askedAtMs = 0;
        let asked = 0;
        for (let nowMs = tickMs; ; nowMs += tickMs) {
          const verdict = evaluateLiveness({
            nowMs,
            heardAtMs: 0,
            askedAtMs,
            deadlineMs: DEADLINE,
            readingHeld: false,
          });
          if (verdict === 'dead') break;
          if (verdict !== 'ask') continue;
          askedAtMs = nowMs;
          asked++;
        }
        assert.ok(asked >= 1 && asked <= 2, `${asked} times`);
      }),
    );
  });
});
