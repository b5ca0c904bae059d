import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startKafka, type KafkaServer } from '../../src/demo/services/kafka.ts';
import { readTopic } from '../support/consume-kafka.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { judge, assertDelivered } from '../support/judge.ts';
import { terminated } from '../support/modes.ts';
import { openOutbox, type Outbox } from '../support/outbox.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { Shop } from '../support/shop.ts';
import { freshTopic } from '../support/topic.ts';
import { until } from '../support/until.ts';

let kafka: KafkaServer;
let outbox: Outbox;

before(async () => {
  kafka = await startKafka({ brokers: 3, heapMb: 256 });
  outbox = await openOutbox();
});
after(async () => {
  await outbox.drop();
  await kafka.remove();
});

test(
  'P1 P3 P4 the leaders of partitions move while sends are on their way: nothing lost, and nothing counted that is not there',
  { timeout: 150_000 },
  async (t) => {
    const client = { brokers: kafka.plaintextBrokers };
    const { topic } = await freshTopic({ client, partitions: 6, replicas: 3 });
    const exhibits = await ExhibitReader.open();
    const relay = RelayProcess.start({
      env: {
        ...outbox.env,
        ...exhibits.env,
        BROKER: 'kafka',
        KAFKA_BROKERS: kafka.brokers.join(','),
        KAFKA_REQUEST_TIMEOUT_MS: '4000',
        ROUTE_TOPIC: topic,
      },
    });
    const shop = await Shop.open({ url: outbox.url });
    try {
      await relay.waitForLine(/mode: streaming/);
      shop.start();
      const published = async (): Promise<number> =>
        (await exhibits.scrape()).value('outbox_relay_events_published_total') ?? 0;
      const flow = async (): Promise<void> => {
        const earlier = await published();
        await until(async () => (await published()) > earlier + 500, { what: 'a flow', timeoutMs: 60_000 });
      };
      await flow();
      await kafka.stopBroker(0, 'SIGKILL');
      await flow();
      await kafka.startBroker(0);
      await flow();
      // Hands its partitions over in order, while they are written to.
      await kafka.stopBroker(1, 'SIGTERM');
      await flow();
      await shop.stop();
      await outbox.drained(60_000);
      const scrape = await exhibits.scrape();
      const committed = await shop.committed();
      const failures = scrape.value('outbox_relay_publish_failures_total') ?? 0;
      assert.ok(failures > 0, 'no send met the move of a leader');
      assert.equal(scrape.value('outbox_relay_events_published_total'), committed.length);
      assert.equal(scrape.value('outbox_relay_events_parked_total') ?? 0, 0);
      await terminated(relay);
      const received = (await readTopic(client, topic)).map(({ key, value, headers }) => ({
        id: headers['id'] ?? '',
        key,
        payload: value?.toString() ?? null,
      }));
      const verdict = judge(committed, received);
      assertDelivered(verdict, { maxDuplicates: failures });
      t.diagnostic(
        `${verdict.committed} committed, ${failures} sends without confirmation, ${verdict.duplicates} duplicates`,
      );
    } finally {
      await shop.stop();
      await relay.destroy();
    }
  },
);
