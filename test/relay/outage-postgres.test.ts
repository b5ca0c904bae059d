import { test } from 'node:test';
import { assertDatabaseOutage } from '../fault/assert-outage.ts';
import { postgresOutage } from '../fault/outages.ts';

test(
  'P1 P2 P3 P4 P9 PostgreSQL crashes under load, half of the commits asynchronous: nothing lost, nothing published that it no longer has',
  { timeout: 180_000 },
  async (t) => t.diagnostic(assertDatabaseOutage(await postgresOutage(5, 2), 2)),
);
