import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import { startRabbitmq, type RabbitmqServer } from '../../src/demo/services/rabbitmq.ts';
import { bindQueue } from '../support/consume-rabbitmq.ts';
import { ExhibitReader } from '../support/exhibits.ts';
import { uniqueName } from '../support/names.ts';
import { openOutbox, type Outbox } from '../support/outbox.ts';
import { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

/** The relay looks for a new secret every 30 seconds. */
const HALT_MS = 30_000;

const folder = mkdtempSync(join(tmpdir(), 'secrets-'));
after(() => rmSync(folder, { recursive: true }));

let postgres: PostgresServer;
let rabbitmq: RabbitmqServer;

before(async () => {
  [postgres, rabbitmq] = await Promise.all([startPostgres({ auth: 'scram-sha-256' }), startRabbitmq()]);
});
after(async () => await Promise.all([postgres.remove(), rabbitmq.remove()]));

function secretFile(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, `${content}\n`);
  return path;
}

interface Rotation {
  readonly outbox: Outbox;
  readonly env: Readonly<Record<string, string>>;
  /** The server no longer takes the old password, and ends the sessions that had it. */
  readonly change: () => Promise<void>;
  /** The new one is in the file. */
  readonly tell: () => void;
  readonly delivered: (relay: RelayProcess) => Promise<string[]>;
}

/** Halted with metrics up and the lag growing, then recovered without a restart. */
async function assertSurvives({ outbox, env, change, tell, delivered }: Rotation): Promise<void> {
  const exhibits = await ExhibitReader.open();
  const relay = RelayProcess.start({ env: { ...outbox.env, ...exhibits.env, ...env } });
  try {
    await relay.waitForLine(/mode: streaming/);
    const first = await outbox.emit('thing', 'a', 1);
    await outbox.drained();
    await change();
    await until(async () => (await exhibits.status())['mode'] === 'halted', {
      what: 'the relay to halt',
      timeoutMs: 30_000,
    });
    const second = await outbox.emit('thing', 'a', 2);
    await until(async () => (await exhibits.lag()) > 2, { what: 'the lag to grow', timeoutMs: 20_000 });
    const scrape = await exhibits.scrape();
    assert.equal(scrape.value('outbox_relay_mode', 'mode="halted"'), 1);
    assert.equal(scrape.value('outbox_relay_leader'), 0);
    assert.equal((await exhibits.text('/livez')).status, 200);
    assert.equal((await exhibits.text('/readyz')).status, 200);
    const halted = await relay.waitForLine(/halted: this needs a person/);
    assert.match(halted, /"code":"[a-z-]*(credentials|authentication)"/);
    assert.ok(!relay.output.includes('old-secret'));
    tell();
    await outbox.drained(2 * HALT_MS);
    await until(async () => (await exhibits.lag()) === 0, { what: 'a lag of 0' });
    assert.deepEqual(await delivered(relay), [first, second]);
    relay.kill('SIGTERM');
    assert.deepEqual(await relay.exit, { code: 0, signal: null }, relay.output);
  } finally {
    await relay.destroy();
    await outbox.drop();
  }
}

test(
  "P8 P10 RabbitMQ's password is changed while another relay stands by: neither ends, and one goes on with the new secret",
  { timeout: 120_000 },
  async () => {
    const outbox = await openOutbox(postgres.url);
    const exchange = uniqueName('exchange');
    const queue = await bindQueue({ url: rabbitmq.url, exchange });
    const user = uniqueName('user');
    await rabbitmq.ctl('add_user', user, 'old-secret');
    await rabbitmq.ctl('set_permissions', '-p', '/', user, '.*', '.*', '.*');
    const url = new URL(rabbitmq.url);
    url.username = '';
    url.password = '';
    const env = {
      ...outbox.env,
      BROKER: 'rabbitmq',
      RABBITMQ_URL: url.href,
      RABBITMQ_USERNAME: user,
      RABBITMQ_PASSWORD_FILE: secretFile(user, 'old-secret'),
      RABBITMQ_EXCHANGE: exchange,
    };
    const leader = RelayProcess.start({ env });
    const relays = [leader];
    try {
      await leader.waitForLine(/mode: streaming/);
      const standby = RelayProcess.start({ env });
      relays.push(standby);
      await standby.waitForLine(/mode: standby/);
      const first = await outbox.emit('thing', 'a', 1);
      await outbox.drained();
      await rabbitmq.ctl('change_password', user, 'new-secret');
      await rabbitmq.ctl('close_all_user_connections', user, 'password changed');
      await Promise.all(relays.map(async (relay) => await relay.waitForLine(/halted: this needs a person/)));
      const second = await outbox.emit('thing', 'a', 2);
      assert.ok(leader.running && standby.running, `${leader.output}\n${standby.output}`);
      secretFile(user, 'new-secret');
      await outbox.drained(2 * HALT_MS);
      const ids = (await queue.readAll()).map(({ properties }) => String(properties.messageId));
      assert.deepEqual(ids, [first, second]);
      for (const relay of relays) relay.kill('SIGTERM');
      for (const relay of relays) assert.deepEqual(await relay.exit, { code: 0, signal: null }, relay.output);
    } finally {
      for (const relay of relays) await relay.destroy();
      await queue.drop();
      await outbox.drop();
    }
  },
);

describe('P10 a password that is changed while the relay runs', { concurrency: true }, () => {
  test(
    "PostgreSQL's: halted with metrics up, recovered by the new secret file",
    { timeout: 300_000 },
    async () => {
      const outbox = await openOutbox(postgres.url);
      await outbox.sql(`create role relay login superuser password 'old-secret'`);
      const url = new URL(outbox.url);
      url.username = 'relay';
      url.password = '';
      const path = secretFile('postgres', 'old-secret');
      await assertSurvives({
        outbox,
        env: { BROKER: 'stdout', DATABASE_URL: url.href, DATABASE_PASSWORD_FILE: path },
        change: async () => {
          await outbox.sql(`alter role relay password 'new-secret'`);
          await outbox.sql(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'relay'`);
        },
        tell: () => void secretFile('postgres', 'new-secret'),
        delivered: async ({ stdout }) =>
          await Promise.resolve(stdout.map((line) => String((JSON.parse(line) as { id: unknown }).id))),
      });
    },
  );

  test(
    "RabbitMQ's: halted with metrics up, recovered by the new secret file",
    { timeout: 300_000 },
    async () => {
      const outbox = await openOutbox(postgres.url);
      const exchange = uniqueName('exchange');
      const queue = await bindQueue({ url: rabbitmq.url, exchange });
      await rabbitmq.ctl('add_user', 'relay', 'old-secret');
      await rabbitmq.ctl('set_permissions', '-p', '/', 'relay', '.*', '.*', '.*');
      const url = new URL(rabbitmq.url);
      url.username = '';
      url.password = '';
      const path = secretFile('rabbitmq', 'old-secret');
      try {
        await assertSurvives({
          outbox,
          env: {
            BROKER: 'rabbitmq',
            RABBITMQ_URL: url.href,
            RABBITMQ_USERNAME: 'relay',
            RABBITMQ_PASSWORD_FILE: path,
            RABBITMQ_EXCHANGE: exchange,
          },
          change: async () => {
            await rabbitmq.ctl('change_password', 'relay', 'new-secret');
            await rabbitmq.ctl('close_all_user_connections', 'relay', 'password changed');
          },
          tell: () => void secretFile('rabbitmq', 'new-secret'),
          delivered: async () =>
            (await queue.readAll()).map(({ properties }) => String(properties.messageId)),
        });
      } finally {
        await queue.drop();
      }
    },
  );
});
