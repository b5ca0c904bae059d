import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DatabaseClock } from '../../../src/observe/lag.ts';
import { createLogger } from '../../../src/observe/log.ts';
import { createMetrics } from '../../../src/observe/metrics.ts';
import { Observer } from '../../../src/observe/observer.ts';
import { eventOf, transactionOf } from '../pipeline/builders.ts';

function setUp(): { observer: Observer; told: () => string[] } {
  const lines: string[] = [];
  const log = createLogger({
    level: 'info',
    format: 'json',
    write: (line) => lines.push(line),
    now: () => 0,
  });
  const observer = new Observer({
    log,
    metrics: createMetrics({ version: '0' }),
    clock: new DatabaseClock(),
  });
  const told = (): string[] => lines.map((line) => (JSON.parse(line) as { code: string }).code);
  return { observer, told };
}

test('what the broker does not confirm is told once for each reason, and counted each time', async () => {
  const { observer, told } = setUp();
  const message = { destination: 'orders', event: eventOf(1, transactionOf()) };
  for (let n = 0; n < 50; n++)
    for (const code of ['no-leader', 'request-timed-out'])
      observer.publishFailed({ code, reason: 'why' }, message);
  assert.deepEqual(told(), ['no-leader', 'request-timed-out']);
  assert.match(await observer.metrics.text(), /publish_failures_total\{code="no-leader"\} 50/);
});

test('a flood of parked events of mixed kinds is a line for each kind', () => {
  const { observer, told } = setUp();
  for (let n = 0; n < 50; n++)
    for (const code of ['headers-invalid', 'address-incomplete'])
      observer.parked({
        event: eventOf(n, transactionOf()),
        parked: { code, reason: 'why', attempts: 0, destination: null, key: null },
      });
  assert.deepEqual(told(), ['headers-invalid', 'address-incomplete']);
});
