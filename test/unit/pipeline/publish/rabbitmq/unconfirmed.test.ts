import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { Unconfirmed } from '../../../../../src/pipeline/publish/rabbitmq/unconfirmed.ts';

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ push: fc.integer({ min: 1, max: 700 }) }) },
  { weight: 5, arbitrary: fc.record({ take: fc.double({ min: 0, max: 1.01, noNaN: true }) }) },
  { weight: 1, arbitrary: fc.record({ drain: fc.double({ min: 0, max: 1, noNaN: true }) }) },
);

test('what is outstanding is what a Map would hold, in its order, whatever is confirmed first', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const ring = new Unconfirmed<{ readonly tag: number }>();
      const model = new Map<number, { readonly tag: number }>();
      let next = 1;
      for (const each of steps) {
        if ('push' in each) {
          for (let i = 0; i < each.push; i++) {
            const item = { tag: next };
            model.set(next++, item);
            ring.push(item);
          }
        } else if ('take' in each) {
          const tag = Math.floor(each.take * next);
          assert.equal(ring.take(tag), model.get(tag));
          model.delete(tag);
        } else {
          const upTo = Math.floor(each.drain * next);
          while (ring.size > 0 && ring.oldestTag <= upTo) {
            assert.equal(ring.take(ring.oldestTag), model.values().next().value);
            model.delete(model.keys().next().value as number);
          }
        }
        assert.equal(ring.size, model.size);
        assert.equal(ring.oldest, model.values().next().value);
      }
      assert.deepEqual([...ring], [...model.values()]);
      ring.clear();
      assert.equal(ring.size, 0);
      assert.equal(ring.oldest, undefined);
    }),
  );
});
