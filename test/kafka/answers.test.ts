import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RelayError } from '../../src/errors/errors.ts';
import { Cluster } from '../../src/pipeline/publish/kafka/cluster.ts';
import { createKafkaPublisher } from '../../src/pipeline/publish/kafka/kafka-publisher.ts';
import type { KafkaPublisherOptions } from '../../src/pipeline/publish/kafka/kafka-publisher.ts';
import type { Outcome, Publisher } from '../../src/pipeline/publish/publisher.ts';
import { makeMessage } from '../support/publisher-driver.ts';
import { FakeKafka } from '../support/publisher-fake-kafka.ts';
import { until } from '../support/until.ts';
import { CLIENTS, kafkaConfig, type KafkaClient } from './kafka-config.ts';

/** Answers and moments that a real cluster does not give on demand. */
interface Stage {
  readonly kafka: FakeKafka;
  readonly publisher: Publisher;
  readonly outcomes: Map<string, Outcome>;
  readonly fatal: Error[];
  readonly connections: boolean[];
  readonly notices: string[];
  readonly rooms: () => number;
  /** One message, to the partition of an unkeyed message with this id. */
  readonly send: (destination: string, ...ids: readonly string[]) => void;
  readonly outcome: (id: string) => Promise<Outcome>;
}

async function onStage(
  { client, ...options }: KafkaPublisherOptions & { readonly client: KafkaClient },
  run: (stage: Stage) => Promise<void>,
): Promise<void> {
  const kafka = await FakeKafka.start([1, 2]);
  const outcomes = new Map<string, Outcome>();
  const fatal: Error[] = [];
  const connections: boolean[] = [];
  const notices: string[] = [];
  let rooms = 0;
  const config = kafkaConfig([kafka.node(1).address], { client, requestTimeoutMs: 5000 });
  const events = {
    onRoom: () => void rooms++,
    onFatal: (error: Error) => void fatal.push(error),
    onConnection: (connected: boolean) => void connections.push(connected),
    onNotice: (message: string) => void notices.push(message),
  };
  const publisher = createKafkaPublisher(config, events, options);
  const send = (destination: string, ...ids: readonly string[]): void =>
    publisher.publish(
      ids.map((id) => makeMessage({ destination, id, key: null })),
      ({ id }, outcome) => void outcomes.set(id, outcome),
    );
  const outcome = async (id: string): Promise<Outcome> =>
    await until(() => outcomes.get(id), { what: `an outcome of ${id}` });
  try {
    await publisher.connect(AbortSignal.timeout(10_000));
    await run({
      kafka,
      publisher,
      outcomes,
      fatal,
      connections,
      notices,
      rooms: () => rooms,
      send,
      outcome,
    });
  } finally {
    await publisher.close(0);
    await kafka.close();
  }
}

for (const client of CLIENTS) {
  for (const errorCode of [31, 35, 43, 58, 76]) {
    test(`${client}: an answer that needs a person (Kafka error ${errorCode}) halts; connecting again goes on`, async () => {
      await onStage({ client }, async ({ kafka, publisher, fatal, connections, send, outcome }) => {
        kafka.topics.set('t', [1]);
        kafka.onProduce = () => errorCode;
        send('t', 'first');
        assert.equal((await outcome('first')).kind, 'unknown');
        assert.equal(fatal.length, 1);
        assert.ok(fatal[0] instanceof RelayError && fatal[0].consequence === 'stop');
        assert.ok(fatal[0].advice.length > 20);
        assert.equal(publisher.room(), 0);
        await until(() => kafka.connections === 0, { what: 'every link closed' });
        kafka.onProduce = () => 0;
        await publisher.connect(AbortSignal.timeout(10_000));
        send('t', 'second');
        assert.equal((await outcome('second')).kind, 'durable');
        assert.deepEqual(connections, [true, false, true]);
      });
    });
  }

  test(`${client}: P1 a partition that the answer does not mention is unknown, its neighbours are durable`, async () => {
    await onStage({ client }, async ({ kafka, send, outcome }) => {
      kafka.topics.set('t', [1, 1]);
      kafka.onProduce = ({ partition }) => (partition === 0 ? 'left out' : 0);
      const ids = ['a', 'b', 'c', 'd', 'e', 'f'];
      send('t', ...ids);
      const kinds = await Promise.all(ids.map(async (id) => (await outcome(id)).kind));
      assert.deepEqual(new Set(kinds), new Set(['durable', 'unknown']));
    });
  });

  test(`${client}: a login that is answered with rubbish fails, and nothing else does`, async () => {
    const kafka = await FakeKafka.start([1]);
    kafka.challenge = 'rubbish';
    const sasl = { mechanism: 'scram-sha-256', username: 'u', password: () => 'p' } as const;
    const config = kafkaConfig([kafka.node(1).address], { client, sasl });
    const ignored = { onRoom: () => undefined, onFatal: () => undefined, onConnection: () => undefined };
    const publisher = createKafkaPublisher(config, ignored);
    try {
      await assert.rejects(publisher.connect(AbortSignal.timeout(10_000)), RelayError);
      await until(() => kafka.connections === 0, { what: 'the connection closed' });
    } finally {
      await publisher.close(0);
      await kafka.close();
    }
  });

  test(`${client}: a halt answers for everything, and sends nothing more to any broker`, async () => {
    await onStage({ client }, async ({ kafka, fatal, outcomes, send, outcome }) => {
      kafka.topics.set('slow', [1]);
      kafka.topics.set('refused', [2]);
      kafka.onProduce = ({ topic }) => (topic === 'slow' ? 'silence' : 58);
      send('slow', 'in flight');
      await until(() => kafka.produced.length === 1, { what: 'the first sent' });
      send('slow', 'behind it');
      send('refused', 'refused');
      await outcome('refused');
      assert.equal(fatal.length, 1);
      assert.deepEqual(
        [...outcomes.values()].map(({ kind }) => kind),
        ['unknown', 'unknown', 'unknown'],
      );
      await until(() => kafka.connections === 0, { what: 'every link closed' });
      assert.deepEqual(
        kafka.produced.map(({ topic }) => topic),
        ['slow', 'refused'],
      );
    });
  });

  test(`${client}: connecting while connected, or while the connection is coming back, opens nothing`, async () => {
    await onStage({ client }, async ({ kafka, publisher, connections, send, outcome }) => {
      kafka.topics.set('t', [1, 2]);
      const ids = 'abcdefgh'.split('');
      send('t', ...ids);
      for (const id of ids) assert.equal((await outcome(id)).kind, 'durable');
      assert.equal(kafka.connections, 2);
      const signal = AbortSignal.timeout(10_000);
      for (let i = 0; i < 3; i++) await publisher.connect(signal);
      assert.equal(kafka.connections, 2);
      for (const nodeId of [1, 2]) kafka.node(nodeId).cut();
      await until(() => publisher.room() === 0, { intervalMs: 0, what: 'the loss noticed' });
      await Promise.all([publisher.connect(signal), publisher.connect(signal)]);
      assert.ok(publisher.room() > 0);
      assert.equal(kafka.connections, 1);
      assert.deepEqual(connections, [true]);
      await assert.rejects(publisher.connect(AbortSignal.abort()));
    });
  });

  test(`${client}: room that comes because messages were refused, not sent, is told`, async () => {
    await onStage({ client, maxEvents: 2 }, async ({ publisher, rooms, send, outcome }) => {
      const before = rooms();
      send('there-is-no-such-topic', 'a', 'b');
      assert.equal(publisher.room(), 0);
      for (const id of ['a', 'b']) assert.equal((await outcome(id)).kind, 'rejected');
      await until(() => rooms() > before, { timeoutMs: 1000, what: 'onRoom' });
      assert.equal(publisher.room(), 2);
    });
  });

  test(`${client}: a topic that grows is a notice, once, and no change of the connection`, async () => {
    await onStage({ client, metadataMaxAgeMs: 0 }, async ({ kafka, notices, connections, send, outcome }) => {
      kafka.topics.set('t', [1]);
      send('t', 'before');
      await outcome('before');
      kafka.topics.set('t', [1, 1]);
      for (const id of ['a', 'b', 'c', 'd']) {
        send('t', id);
        await outcome(id);
      }
      await until(() => notices.length > 0, { what: 'the notice' });
      assert.equal(notices.length, 1);
      assert.match(notices[0] as string, /topic t has more partitions/);
      assert.deepEqual(connections, [true]);
    });
  });

  test(`${client}: P3 a topic that brokers do not know for a while keeps its lanes; what waits is refused as missing`, async () => {
    await onStage({ client, metadataMaxAgeMs: 0 }, async ({ kafka, publisher, send, outcome }) => {
      const message = makeMessage({ destination: 't', id: 'x', key: 'key' });
      kafka.topics.set('t', [1, 1]);
      send('t', 'before');
      await outcome('before');
      const lane = publisher.laneOf(message);
      assert.match(lane ?? '', /^t:2:\d$/);
      kafka.topics.delete('t');
      kafka.onProduce = () => 3;
      send('t', 'unanswered');
      assert.equal((await outcome('unanswered')).kind, 'unknown');
      send('t', 'missing');
      const missing = await outcome('missing');
      assert.ok(missing.kind === 'rejected' && missing.missingDestination === true);
      assert.equal(publisher.laneOf(message), lane);
      kafka.topics.set('t', [1, 1, 1, 1]);
      kafka.onProduce = () => 0;
      send('t', 'after');
      assert.equal((await outcome('after')).kind, 'durable');
      assert.equal(publisher.laneOf(message), lane);
      assert.equal(publisher.layoutOf?.('t'), 2);
      kafka.topics.set('t', [1]);
      send('t', 'made anew');
      assert.equal((await outcome('made anew')).kind, 'durable');
      await until(() => publisher.layoutOf?.('t') === 1, { what: 'the new layout' });
      assert.equal(publisher.laneOf(message), 't:1:0');
    });
  });

  test(`${client}: a broker that moves while its link is being opened: the old link is closed`, async () => {
    const kafka = await FakeKafka.start([1, 2]);
    let lost = 0;
    let answers = 0;
    const cluster = new Cluster(kafkaConfig([kafka.node(1).address], { client }), {
      onLink: () => undefined,
      onLinkLost: () => void lost++,
      onMetadata: () => void answers++,
      onFatal: () => undefined,
    });
    try {
      await cluster.connect();
      kafka.mute.set(2, []);
      const old = kafka.node(2);
      assert.equal(cluster.linkTo(2), undefined);
      await until(() => (kafka.mute.get(2) ?? []).length === 1, { what: 'the handshake under way' });
      await kafka.addNode(2);
      cluster.ask(['any']);
      await until(() => answers === 1, { what: 'the new address known' });
      kafka.speak(2);
      await until(() => old.sockets.size === 0, { what: 'the old link closed' });
      await until(() => cluster.linkTo(2), { what: 'a link to the new address' });
      assert.equal(kafka.connections, 2);
      assert.equal(lost, 0);
    } finally {
      cluster.close();
      await kafka.close();
    }
  });
}
