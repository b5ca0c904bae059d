import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { type Group, groupByPartition } from '../../../../../src/pipeline/publish/kafka/grouping.ts';
import { judgeEpochAnswer } from '../../../../../src/pipeline/publish/kafka/producer-epoch.ts';
import { Sequences } from '../../../../../src/pipeline/publish/kafka/sequences.ts';
import { TopicTable } from '../../../../../src/pipeline/publish/kafka/topics.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';

const topics = new TopicTable();
topics.apply({
  brokers: [],
  topicMetadata: [
    {
      topicErrorCode: 0,
      topic: 't',
      partitionMetadata: [{ partitionErrorCode: 0, partitionId: 0, leader: 1 }],
    },
  ],
});

function group(count: number): Group {
  const messages = Array.from({ length: count }, (_, i) => makeMessage({ destination: 't', id: `${i}` }));
  const [made] = groupByPartition(messages, topics, () => undefined);
  return made as Group;
}

function send(sequences: Sequences, count: number): Group {
  const made = group(count);
  made.stamp = sequences.stamp(made);
  return made;
}

test('P1 a number that may have been written is used for nothing else: in doubt there is none until a new epoch', () => {
  const sequences = new Sequences();
  assert.equal(send(sequences, 1).stamp, undefined, 'no epoch yet');
  sequences.begin({ producerId: 7n, epoch: 3 });
  const first = send(sequences, 5);
  assert.deepEqual(first.stamp, { producerId: 7n, epoch: 3, sequence: 0 });
  assert.deepEqual(sequences.stamp(first), first.stamp, 'encoded again before it was sent');
  sequences.settled(first, 'durable');
  const refused = send(sequences, 2);
  sequences.settled(refused, 'rejected');
  const lost = send(sequences, 3);
  assert.equal(lost.stamp?.sequence, 5, 'what was refused has used none');
  sequences.settled(lost, 'unknown');
  assert.ok(sequences.isDoubtful('t:0'));
  assert.equal(send(sequences, 3).stamp, undefined);
  sequences.begin({ producerId: 7n, epoch: 4 });
  assert.deepEqual(send(sequences, 3).stamp, { producerId: 7n, epoch: 4, sequence: 0 });
});

test('an answer that belongs to an earlier epoch changes nothing of the new one', () => {
  for (const kind of ['durable', 'unknown'] as const) {
    const sequences = new Sequences();
    sequences.begin({ producerId: 7n, epoch: 3 });
    const before = send(sequences, 5);
    sequences.begin({ producerId: 7n, epoch: 4 });
    sequences.settled(before, kind);
    assert.equal(send(sequences, 1).stamp?.sequence, 0);
  }
});

test('a second batch of a partition with one on its way, and numbers at their end: none', () => {
  const sequences = new Sequences();
  sequences.begin({ producerId: 7n, epoch: 3 });
  const first = send(sequences, 1);
  assert.equal(send(sequences, 1).stamp, undefined);
  sequences.settled(first, 'durable');
  const huge = { ...group(1), messages: { length: 0x7fffffff } as unknown as Group['messages'] };
  assert.equal(sequences.stamp(huge), undefined);
  assert.ok(sequences.isDoubtful('t:0'));
});

test('P1 whatever happens, no two batches carry the same numbers unless the first was refused', () => {
  const step = fc.constantFrom('durable', 'rejected', 'unknown', 'epoch');
  fc.assert(
    fc.property(fc.array(fc.tuple(step, fc.integer({ min: 1, max: 4 })), { maxLength: 60 }), (steps) => {
      const sequences = new Sequences();
      const used = new Set<string>();
      let epoch = 0;
      for (const [what, count] of steps) {
        if (what === 'epoch') sequences.begin({ producerId: 1n, epoch: epoch++ });
        else {
          const sent = send(sequences, count);
          const { stamp } = sent;
          const numbers = Array.from(
            { length: stamp ? count : 0 },
            (_, i) => `${stamp?.epoch}/${(stamp?.sequence ?? 0) + i}`,
          );
          assert.ok(numbers.every((number) => !used.has(number)));
          if (what !== 'rejected') for (const number of numbers) used.add(number);
          sequences.settled(sent, what);
        }
      }
    }),
  );
});

test('only who holds an epoch can be fenced when asking for the next', () => {
  const held = { producerId: 1n, epoch: 1 };
  assert.equal(judgeEpochAnswer(0, held), 'given');
  for (const errorCode of [47, 49, 90]) {
    assert.equal(judgeEpochAnswer(errorCode, held), 'fenced');
    assert.equal(judgeEpochAnswer(errorCode, undefined), 'again');
  }
  assert.equal(judgeEpochAnswer(53, undefined), 'refused');
  for (const errorCode of [14, 15, 16, 51, 7]) assert.equal(judgeEpochAnswer(errorCode, held), 'again');
});
