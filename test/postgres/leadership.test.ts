import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { loadConfig } from '../../src/config/load.ts';
import { Leadership } from '../../src/lifecycle/leadership.ts';
import { GRACE_MS, LEASE_MS, readClocks } from '../../src/lifecycle/lease.ts';
import { ProgressStore } from '../../src/pipeline/settle/progress.ts';
import { withClient } from '../support/database.ts';
import { openOutbox, type Outbox } from '../support/outbox.ts';
import { until } from '../support/until.ts';

let outbox: Outbox;

before(async () => {
  outbox = await openOutbox();
});
after(async () => await outbox.drop());

const configOf = (slot: string): ReturnType<typeof loadConfig> =>
  loadConfig({ ...outbox.env, SLOT_NAME: slot, BROKER: 'stdout' });

function leadership(
  slot: string,
  heard: { onLost?: () => void; onRenewed?: () => void; onUnrenewed?: (error: unknown) => void } = {},
): Leadership {
  return new Leadership({
    config: configOf(slot),
    onStandby: () => undefined,
    onRenewed: () => undefined,
    onUnrenewed: () => undefined,
    onLost: () => undefined,
    ...heard,
  });
}

test(
  'P8 a lease that can not be renewed is told, and renewed again later',
  { timeout: 30_000 },
  async (t) => {
    const told: unknown[] = [];
    let renewed = 0;
    const leading = leadership('unrenewed', {
      onUnrenewed: (error) => told.push(error),
      onRenewed: () => renewed++,
    });
    t.after(async () => await leading.release());
    assert.ok(await leading.acquire(new AbortController().signal));
    await withClient(outbox.url, async (client) => {
      await client.query('alter table outbox_relay_lease rename to lease_elsewhere');
      await until(() => told.length > 0, { what: 'a renewal that failed' });
      assert.match(String(told[0]), /outbox_relay_lease/);
      await client.query('alter table lease_elsewhere rename to outbox_relay_lease');
    });
    const renewals = renewed;
    await until(() => renewed > renewals, { what: 'a renewal' });
  },
);

test(
  'P8 a renewal that arrives between the last look and the take keeps the lease',
  { timeout: 30_000 },
  async () => {
    await outbox.sql(
      `insert into outbox_relay_lease values ('renewed', 'another machine', 7, clock_timestamp(), clock_timestamp())`,
    );
    const stop = new AbortController();
    const waiting = leadership('renewed');
    const startedMs = performance.now();
    const lease = waiting.acquire(stop.signal);
    try {
      await withClient(outbox.url, async (client) => {
        // Not committed: the one who waits still sees the row as it was, and its take waits for this.
        await client.query('begin');
        await client.query(
          `update outbox_relay_lease set renewed_at = clock_timestamp() where slot_name = 'renewed'`,
        );
        await until(
          async () => {
            const rows = await outbox.sql(
              `select 1 from pg_stat_activity where application_name = 'outbox-relay lease' and wait_event_type = 'Lock'
                and datname = current_database()`,
            );
            return rows.length === 1;
          },
          { what: 'the take to begin', timeoutMs: 10_000 },
        );
        await client.query('commit');
      });
      const renewedMs = performance.now();
      assert.equal((await lease)?.token, 8n);
      assert.ok(renewedMs - startedMs >= LEASE_MS + GRACE_MS - 1, 'it began before its time');
      assert.ok(
        performance.now() - renewedMs >= LEASE_MS + GRACE_MS - 1,
        'it took a lease that had just been renewed',
      );
    } finally {
      stop.abort();
      await waiting.release();
    }
  },
);

test(
  'P8 who gives the lease back is followed at once; nothing that it writes later counts',
  { timeout: 30_000 },
  async () => {
    const { signal } = new AbortController();
    let lost = false;
    const [first, second] = [leadership('given'), leadership('given', { onLost: () => (lost = true) })];
    const given = await first.acquire(signal);
    assert.ok(given);
    assert.ok(given.holds(readClocks()));
    const next = second.acquire(signal);
    await first.release();
    const releasedMs = performance.now();
    const lease = await next;
    try {
      assert.ok(performance.now() - releasedMs < LEASE_MS, 'it waited for a lease that was given back');
      assert.deepEqual([given.holds(readClocks()), lease?.holds(readClocks())], [false, true]);
      await withClient(outbox.url, async (client) => {
        const [earlier, later] = [given, lease].map(
          (each) => new ProgressStore(configOf('given'), each?.token ?? 0n),
        );
        await earlier?.claim(client);
        await earlier?.beginPolling(client);
        await later?.claim(client);
        await assert.rejects(async () => await earlier?.touch(client), { code: 'progress-lost' });
        await assert.rejects(async () => await earlier?.claim(client), { code: 'progress-lost' });
        const write = { settled: [], removable: [], retried: [], position: 1n, beyond: [] };
        await assert.rejects(async () => await earlier?.write(client, write, 'polling', 0n), {
          code: 'progress-lost',
        });
        await later?.touch(client);
      });
      await outbox.sql(
        `update outbox_relay_lease set token = token + 1, holder = 'another machine' where slot_name = 'given'`,
      );
      await until(() => lost, { what: 'the loss to be noticed', timeoutMs: 5_000 });
      assert.equal(lease?.holds(readClocks()), false);
    } finally {
      await second.release();
    }
  },
);
