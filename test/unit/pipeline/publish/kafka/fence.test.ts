import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fence, type FenceLink } from '../../../../../src/pipeline/publish/kafka/fence.ts';
import { type Group, groupByPartition } from '../../../../../src/pipeline/publish/kafka/grouping.ts';
import type { ProducerEpochAnswer } from '../../../../../src/pipeline/publish/kafka/producer-epoch.ts';
import type { ProducerEpoch } from '../../../../../src/pipeline/publish/kafka/sequences.ts';
import { TopicTable } from '../../../../../src/pipeline/publish/kafka/topics.ts';
import { makeMessage } from '../../../../support/publisher-driver.ts';
import { until } from '../../../../support/until.ts';

/** A cluster that gives one epoch after the other, as long as its answer is 0. */
class StubCluster implements FenceLink {
  givesProducerEpochs = true;
  errorCode = 0;
  leads = true;
  ready = 0;
  readonly asked: (ProducerEpoch | undefined)[] = [];
  readonly fenced: number[] = [];
  readonly notices: string[] = [];
  readonly fence: Fence;

  constructor() {
    this.fence = new Fence({
      link: () => this,
      mayAsk: () => this.leads,
      onReady: () => this.ready++,
      onFenced: (errorCode) => this.fenced.push(errorCode),
      onNotice: (message) => this.notices.push(message),
    });
  }

  async findCoordinator(): Promise<{ errorCode: number; nodeId: number }> {
    return await Promise.resolve({ errorCode: 0, nodeId: 1 });
  }

  async initProducerId(_id: string, current: ProducerEpoch | undefined): Promise<ProducerEpochAnswer> {
    this.asked.push(current);
    const epoch = this.errorCode === 0 ? this.asked.length : -1;
    return await Promise.resolve({ errorCode: this.errorCode, producerId: 7n, epoch });
  }

  /** One batch that gets this outcome. */
  send(kind: 'durable' | 'unknown', errorCode = 0): { stamped: boolean; concerned: boolean } {
    const topics = new TopicTable();
    const [group] = groupByPartition(
      [makeMessage({ destination: 't', id: '1' })],
      topics,
      () => undefined,
    ) as [Group];
    group.stamp = this.fence.stamp(group);
    this.fence.settled(group, kind === 'durable' ? { kind } : { kind, code: '', reason: '' });
    return { stamped: group.stamp !== undefined, concerned: this.fence.concerns(group, errorCode) };
  }
}

const PARTITION = 't:-1';

async function leading(t: { after: (end: () => void) => void }): Promise<StubCluster> {
  const cluster = new StubCluster();
  t.after(() => cluster.fence.end());
  assert.ok(!cluster.fence.holdsBack(PARTITION), 'nobody leads yet');
  cluster.fence.begin('outbox-relay.test');
  assert.ok(cluster.fence.holdsBack(PARTITION), 'held back until the epoch is there');
  await until(() => cluster.ready === 1, { what: 'an epoch' });
  assert.ok(!cluster.fence.holdsBack(PARTITION));
  return cluster;
}

test('P1 after an unknown outcome the partition waits for the epoch after ours; others go on', async (t) => {
  const cluster = await leading(t);
  assert.ok(cluster.send('durable').stamped);
  assert.ok(cluster.send('unknown').stamped);
  assert.ok(!cluster.fence.holdsBack('t:5'));
  assert.ok(cluster.fence.holdsBack(PARTITION));
  await until(() => cluster.ready === 2, { what: 'the next epoch' });
  assert.deepEqual(cluster.asked, [undefined, { producerId: 7n, epoch: 1 }]);
  assert.ok(!cluster.fence.holdsBack(PARTITION));
});

test('P1 a coordinator that is away holds nothing up for long', async (t) => {
  const cluster = await leading(t);
  cluster.errorCode = 15;
  cluster.send('unknown');
  assert.ok(cluster.fence.holdsBack(PARTITION));
  await until(() => !cluster.fence.holdsBack(PARTITION), { what: 'the end of the wait' });
  assert.ok(!cluster.send('durable').stamped, 'without an epoch');
  assert.ok(!cluster.fence.holdsBack(PARTITION), 'no second wait');
  await until(() => cluster.notices.length === 1, { what: 'a word about it' });
  cluster.errorCode = 0;
  await until(() => cluster.ready === 2, { what: 'the next epoch' });
  assert.ok(cluster.send('durable').stamped);
});

test('P8 somebody else has a higher epoch: told once, and no batch carries ours any more', async (t) => {
  const cluster = await leading(t);
  cluster.errorCode = 47;
  cluster.send('unknown');
  cluster.fence.holdsBack(PARTITION);
  await until(() => cluster.fenced.length > 0, { what: 'it told' });
  assert.deepEqual(cluster.fenced, [47]);
  assert.ok(!cluster.send('durable').stamped);
});

test('P8 who may not write asks for no epoch: it would end that of the successor', async (t) => {
  const cluster = new StubCluster();
  t.after(() => cluster.fence.end());
  cluster.leads = false;
  cluster.fence.begin('outbox-relay.test');
  assert.ok(!cluster.fence.holdsBack(PARTITION), 'what waits is told about the lease');
  await new Promise(setImmediate);
  assert.deepEqual(cluster.asked, []);
});

for (const errorCode of [31, 43]) {
  test(`P10 a broker that refuses batches with a producer id (Kafka error ${errorCode}) gets them without`, async (t) => {
    const cluster = await leading(t);
    assert.deepEqual(cluster.send('unknown', errorCode), { stamped: true, concerned: true });
    assert.equal(cluster.notices.length, 1);
    assert.ok(!cluster.fence.holdsBack(PARTITION));
    assert.deepEqual(cluster.send('unknown', errorCode), { stamped: false, concerned: false });
  });
}
