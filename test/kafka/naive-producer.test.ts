import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';

/**
 * Why the relay does not send through the producer of kafkajs. Each test shows, with the library's own code over a stub
 * of the cluster, what the naive use does; it fails on the day when it no longer does. What the relay makes of the same
 * situation is shown in cluster.test.ts, against real brokers.
 */
const require = createRequire(import.meta.url);

interface TopicData {
  readonly topic: string;
  readonly partitions: readonly {
    readonly partition: number;
    readonly firstSequence: number;
    readonly messages: readonly { readonly value: string }[];
  }[];
}

type Produce = (request: { readonly topicData: readonly TopicData[] }) => Promise<unknown>;
type Send = (request: object) => Promise<unknown>;

const createSend = require('kafkajs/src/producer/sendMessages') as (parts: object) => Send;
const createRetry = require('kafkajs/src/retry') as (options: object) => unknown;
const createEosManager = require('kafkajs/src/producer/eosManager') as (parts: object) => {
  initProducerId(): Promise<void>;
};
const { createErrorFromCode } = require('kafkajs/src/protocol/error') as {
  createErrorFromCode: (code: number) => Error;
};
const { KafkaJSRequestTimeoutError: Timeout } = require('kafkajs/src/errors') as {
  KafkaJSRequestTimeoutError: new (message: string) => Error;
};
const { version } = require('kafkajs/package.json') as { version: string };

const NOT_LEADER = 6;
const nothing = (): undefined => undefined;
const later = async (): Promise<void> => await Promise.resolve();
const logger = { debug: nothing, info: nothing, warn: nothing, error: nothing, namespace: () => logger };

const notIdempotent = {
  acquireBrokerLock: later,
  releaseBrokerLock: later,
  isTransactional: () => false,
  getSequence: () => 0,
  updateSequence: nothing,
  getProducerId: () => -1,
  getProducerEpoch: () => 0,
  getTransactionalId: nothing,
};

interface StubCluster {
  readonly leaders: Record<number, number>;
  readonly brokers: Record<number, { readonly nodeId: number; produce: Produce }>;
}

function partitionGiven({ message }: { message: { partition: number } }): number {
  return message.partition;
}

/** `known` are the leaders of the last metadata; `leaders` those that really lead. */
function makeSend({ leaders, brokers }: StubCluster, eosManager: object = notIdempotent): Send {
  let known = { ...leaders };
  const cluster = {
    retry: {},
    targetTopics: new Set(),
    addMultipleTargetTopics: later,
    refreshMetadataIfNecessary: later,
    refreshMetadata: async () => {
      await later();
      known = { ...leaders };
    },
    isConnected: () => true,
    removeBroker: nothing,
    findTopicPartitionMetadata: () =>
      [0, 1].map((partitionId) => ({ partitionId, leader: known[partitionId] })),
    findLeaderForPartitions: (_topic: string, partitions: readonly string[]) =>
      Object.groupBy(partitions.map(Number), (partition) => known[partition] ?? -1),
    findBroker: async ({ nodeId }: { nodeId: number }) => await Promise.resolve(brokers[nodeId]),
  };
  const partitioner = partitionGiven;
  const retrier = createRetry({ initialRetryTime: 5, retries: 5 });
  return createSend({ logger, cluster, partitioner, eosManager, retrier });
}

function answerTo(topicData: readonly TopicData[]): object {
  return {
    topics: topicData.map(({ topic, partitions }) => ({
      topicName: topic,
      partitions: partitions.map(({ partition }) => ({ partition, errorCode: 0, baseOffset: '0' })),
    })),
  };
}

const twoPartitions = {
  acks: -1,
  topicMessages: [
    {
      topic: 't',
      messages: [
        { partition: 0, value: 'first' },
        { partition: 1, value: 'second' },
      ],
    },
  ],
};

test('kafkajs is the version whose internals the relay builds on', () => {
  assert.equal(version, '2.2.4');
});

test('P1 naive: kafkajs resolves although a partition was never produced, when its leader moves meanwhile', async () => {
  const leaders: Record<number, number> = { 0: 1, 1: 2 };
  const written: string[] = [];
  const produceAt =
    (nodeId: number): Produce =>
    async ({ topicData }) => {
      await later();
      if (nodeId === 1) {
        leaders[0] = 2;
        throw createErrorFromCode(NOT_LEADER);
      }
      written.push(
        ...topicData.flatMap((t) => t.partitions.flatMap((p) => p.messages.map(({ value }) => value))),
      );
      return answerTo(topicData);
    };
  const brokers = { 1: { nodeId: 1, produce: produceAt(1) }, 2: { nodeId: 2, produce: produceAt(2) } };
  const answer = JSON.stringify(await makeSend({ leaders, brokers })(twoPartitions));
  assert.deepEqual(written, ['second'], 'the message of partition 0 was not written');
  assert.ok(!answer.includes('"partition":0'), 'and only a look into the answer could tell');
});

test('P1 naive: with two sends outstanding, the idempotent producer resolves for a batch dropped as a duplicate', async () => {
  const appended: string[] = [];
  const dropped: string[] = [];
  const sequences = new Set<string>();
  let calls = 0;
  const produce: Produce = async ({ topicData }) => {
    const { firstSequence, messages } = topicData[0]!.partitions[0]!;
    const values = messages.map(({ value }) => value);
    const sequence = `${firstSequence}+${messages.length}`;
    (sequences.has(sequence) ? dropped : appended).push(...values);
    sequences.add(sequence);
    calls++;
    if (calls === 1) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      throw new Timeout('the answer is lost, the batch is not');
    }
    return answerTo(topicData);
  };
  const leaders = { 0: 1, 1: 1 };
  const brokers = { 1: { nodeId: 1, produce } };
  const cluster = { findControllerBroker, refreshMetadataIfNecessary: later, retry: {} };
  const eosManager = createEosManager({ logger, cluster, transactional: false });
  await eosManager.initProducerId();
  const send = makeSend({ leaders, brokers }, eosManager);
  const settled = await Promise.allSettled([send(oneMessage('A')), send(oneMessage('B'))]);
  assert.deepEqual(
    settled.map(({ status }) => status),
    ['fulfilled', 'fulfilled'],
  );
  assert.deepEqual(dropped, ['B']);
  assert.ok(!appended.includes('B'), 'B is lost, although its send resolved');
});

function oneMessage(value: string): object {
  return { acks: -1, topicMessages: [{ topic: 't', messages: [{ partition: 0, value }] }] };
}

async function findControllerBroker(): Promise<object> {
  return await Promise.resolve({ initProducerId });
}

async function initProducerId(): Promise<object> {
  return await Promise.resolve({ producerId: 7, producerEpoch: 0 });
}

test('P10 naive: an error of one partition fails the whole call and names no partition', async () => {
  const parse = (
    require('kafkajs/src/protocol/requests/produce/v7/response') as {
      parse: (data: object) => Promise<object>;
    }
  ).parse;
  const partitions = [
    { partition: 0, errorCode: 0 },
    { partition: 1, errorCode: 10 },
  ];
  await assert.rejects(parse({ topics: [{ topicName: 't', partitions }] }), (error: Error) => {
    assert.ok(!('partition' in error) && !('topic' in error));
    return true;
  });
});

test('P10 naive: one missing topic fails the metadata of all topics asked for', async () => {
  const parse = (
    require('kafkajs/src/protocol/requests/metadata/v5/response') as {
      parse: (data: object) => Promise<object>;
    }
  ).parse;
  const good = { topicErrorCode: 0, topic: 'good', partitionMetadata: [] };
  await assert.rejects(parse({ topicMetadata: [good, { ...good, topicErrorCode: 3, topic: 'gone' }] }));
});
