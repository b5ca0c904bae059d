import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KafkaConfig } from '../../../../../src/config/config.ts';
import { type Group, groupByPartition } from '../../../../../src/pipeline/publish/kafka/grouping.ts';
import { type ProduceLink, Sender } from '../../../../../src/pipeline/publish/kafka/sender.ts';
import { TopicTable } from '../../../../../src/pipeline/publish/kafka/topics.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';
import { until } from '../../../../support/until.ts';
import { kafkaConfig } from '../../../../kafka/kafka-config.ts';

class StubLink implements ProduceLink {
  readonly frames: Buffer[] = [];
  needsAuthentication = false;
  readonly login = Promise.withResolvers<void>();
  authentications = 0;

  async authenticate(): Promise<void> {
    this.authentications++;
    await this.login.promise;
  }

  /** Never answers: only what is sent matters. */
  async produce(frame: Buffer): Promise<never> {
    this.frames.push(frame);
    return await new Promise(() => undefined);
  }

  destroy(): void {
    this.login.reject(new Error('destroyed'));
  }
}

interface Stage {
  readonly sender: Sender;
  readonly outcomes: string[];
  link: StubLink;
  leads: boolean;
}

function stageWith(changes: Partial<KafkaConfig>): Stage {
  const outcomes: string[] = [];
  const sender = new Sender(kafkaConfig([], changes), {
    link: () => stage.link,
    mayWrite: () => stage.leads,
    stamp: () => undefined,
    settle: (_group, { kind }) => outcomes.push(kind),
    onBusy: () => undefined,
  });
  const stage: Stage = { sender, outcomes, link: new StubLink(), leads: true };
  return stage;
}

function group(id: string): Group {
  const table = new TopicTable();
  const partitionMetadata = [{ partitionErrorCode: 0, partitionId: 0, leader: 1 }];
  table.apply({ brokers: [], topicMetadata: [{ topicErrorCode: 0, topic: 't', partitionMetadata }] });
  const [made] = groupByPartition([makeMessage({ destination: 't', id })], table, () => undefined);
  return made as Group;
}

test('P3 a request that was given up sends nothing more, not even what waited behind it', async () => {
  const { sender, link, outcomes } = stageWith({});
  for (const id of ['first', 'second']) sender.add(group(id));
  sender.pump();
  await until(() => link.frames.length === 1, { what: 'the first sent' });
  sender.abandon('halted', 'as told');
  await new Promise(setImmediate);
  assert.deepEqual(outcomes, ['unknown']);
  assert.equal(link.frames.length, 1, 'the second was not sent');
  assert.equal(sender.withdraw().length, 1);
});

test('P3 a request given up while it is compressed is not sent', async () => {
  const stage = stageWith({ compression: 'gzip' });
  const before = stage.link;
  stage.sender.add(group('first'));
  stage.sender.pump();
  stage.sender.abandon('connection-lost', 'as told');
  stage.link = new StubLink();
  stage.sender.add(group('first again'));
  stage.sender.pump();
  await until(() => stage.link.frames.length === 1, { what: 'the second attempt sent' });
  assert.equal(before.frames.length, 0);
});

test('P3 a request given up during a new login is not sent, and leaves the buffer to the next', async () => {
  const stage = stageWith({});
  const before = stage.link;
  before.needsAuthentication = true;
  stage.sender.add(group('first'));
  stage.sender.pump();
  await until(() => before.authentications === 1, { what: 'the login' });
  stage.sender.abandon('connection-lost', 'as told');
  stage.link = new StubLink();
  stage.sender.add(group('second'));
  stage.sender.pump();
  before.login.resolve();
  await until(() => stage.link.frames.length === 1, { what: 'the second sent' });
  await new Promise(setImmediate);
  assert.equal(before.frames.length, 0);
  assert.ok(stage.link.frames[0]?.includes('second'));
});

test('P8 a lease that ends during a new login: nothing is sent, nor what waited behind it', async () => {
  const stage = stageWith({});
  stage.link.needsAuthentication = true;
  for (const id of ['first', 'second']) stage.sender.add(group(id));
  stage.sender.pump();
  await until(() => stage.link.authentications === 1, { what: 'the login' });
  stage.leads = false;
  stage.link.login.resolve();
  await until(() => stage.outcomes.length === 2, { what: 'both outcomes' });
  assert.deepEqual(stage.outcomes, ['unknown', 'unknown']);
  assert.equal(stage.link.frames.length, 0);
  assert.ok(!stage.sender.busy);
});
