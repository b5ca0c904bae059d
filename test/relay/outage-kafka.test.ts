import { test } from 'node:test';
import { assertBrokerOutage } from '../fault/assert-outage.ts';
import { kafkaOutage } from '../fault/outages.ts';

test(
  'P1 P3 P7 P9 Kafka is killed under load and comes back: nothing lost, memory flat, lag grows in real time and returns to 0',
  { timeout: 180_000 },
  async (t) => t.diagnostic(assertBrokerOutage(await kafkaOutage(10))),
);
