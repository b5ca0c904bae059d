import assert from 'node:assert/strict';
import { test } from 'node:test';
import { groupByPartition } from '../../../../../src/pipeline/publish/kafka/grouping.ts';
import { isLegalTopic, partitionFor, TopicTable } from '../../../../../src/pipeline/publish/kafka/topics.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';

function answer(topic: string, leaders: readonly number[], topicErrorCode = 0) {
  const partitionMetadata = leaders.map((leader, partitionId) => ({
    partitionErrorCode: 0,
    partitionId,
    leader,
  }));
  return { brokers: [], topicMetadata: [{ topicErrorCode, topic, partitionMetadata }] };
}

const messages = Array.from({ length: 50 }, (_, i) =>
  makeMessage({ destination: 't', id: String(i), key: `k${i}` }),
);

test('a lane is a partition; that of a topic not known is undefined', () => {
  const table = new TopicTable();
  assert.equal(table.laneOf(messages[0]!), undefined);
  table.apply(answer('t', [1, 2, 3]));
  for (const message of messages) assert.equal(table.laneOf(message), `t:3:${partitionFor(message, 3)}`);
});

test('P3 a topic that grows keeps its lanes, so that no key overtakes itself', () => {
  const table = new TopicTable();
  table.apply(answer('t', [1, 1]));
  const before = messages.map((message) => table.laneOf(message));
  assert.deepEqual(table.apply(answer('t', [1, 1, 1, 1])).grown, ['t']);
  assert.deepEqual(table.apply(answer('t', [1, 1, 1, 1])).grown, [], 'said once');
  assert.deepEqual(table.apply(answer('t', [1, 1, 1, 1, 1])).grown, ['t'], 'and again when it is more');
  assert.deepEqual(
    messages.map((message) => table.laneOf(message)),
    before,
  );
});

test('a topic made anew with fewer partitions is taken as it is, with other lanes', () => {
  const table = new TopicTable();
  table.apply(answer('t', [1, 1, 1]));
  table.apply(answer('t', [2]));
  assert.equal(table.get('t')?.partitionCount, 1);
  assert.equal(table.laneOf(messages[0]!), 't:1:0');
});

test('P10 one partition without a leader, or one missing topic, takes nothing from the others', () => {
  const table = new TopicTable();
  const both = {
    brokers: [],
    topicMetadata: [...answer('t', [1, -1]).topicMetadata, ...answer('gone', [], 3).topicMetadata],
  };
  const { problems } = table.apply(both);
  assert.deepEqual([...problems], [['gone', { errorCode: 3 }]]);
  assert.deepEqual(table.get('t')?.leaders, [1, -1]);
});

test('P3 a topic that is not known any more keeps its number: events of it may still wait', () => {
  const table = new TopicTable();
  table.apply(answer('t', [1]));
  table.apply(answer('t', [], 5));
  assert.deepEqual([table.get('t')?.missing, table.get('t')?.leaders], [false, [1]]);
  table.apply(answer('t', [], 3));
  assert.deepEqual([table.get('t')?.missing, table.get('t')?.leaders], [true, [-1]]);
  assert.deepEqual(table.names(), [], 'not asked for, which could create it');
  assert.equal(table.laneOf(messages[0]!), 't:1:0');
  assert.deepEqual(table.apply(answer('t', [1, 1])).grown, ['t']);
  assert.equal(table.laneOf(messages[0]!), 't:1:0');
  assert.deepEqual(table.names(), ['t']);
});

test('P3 groups say by how many partitions they were dealt, so that a change shows', () => {
  const table = new TopicTable();
  const counts = (): number[] =>
    groupByPartition(messages, table, () => undefined).map(({ partitionCount }) => partitionCount);
  assert.deepEqual(counts(), [0]);
  table.apply(answer('t', [1, 1, 1]));
  assert.deepEqual(counts(), [3, 3, 3]);
  table.apply(answer('t', [1]));
  assert.deepEqual(counts(), [1]);
});

test('without a key, the message id chooses the partition: the same each time, spread over all', () => {
  const unkeyed = messages.map(({ id }) => makeMessage({ destination: 't', id, key: null }));
  const partitions = unkeyed.map((message) => partitionFor(message, 4));
  assert.deepEqual(
    unkeyed.map((message) => partitionFor(message, 4)),
    partitions,
  );
  assert.equal(new Set(partitions).size, 4);
});

test('topic names are legal by the rule of Kafka', () => {
  for (const name of ['a', 'outbox.event.Order', 'x_y-z', 'a'.repeat(249)])
    assert.ok(isLegalTopic(name), name);
  for (const name of ['', '.', '..', 'a b', 'é', 'a/b', 'a'.repeat(250)])
    assert.ok(!isLegalTopic(name), name);
});
