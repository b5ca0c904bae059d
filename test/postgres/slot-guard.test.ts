import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { RelayError } from '../../src/errors/errors.ts';
import type { PublisherEvents } from '../../src/pipeline/publish/publisher.ts';
import { CaptureScene } from '../support/capture.ts';
import { withClient } from '../support/database.ts';
import { MemoryPublisher } from '../support/memory-publisher.ts';
import { until } from '../support/until.ts';

const LIMIT_BYTES = 4 * 1024 ** 2;

/** A broker whose credentials expire: it works, and then nothing but a person helps. */
class ExpiringPublisher extends MemoryPublisher {
  private expired: ((error: Error) => void) | undefined;

  override attach(events: PublisherEvents): this {
    this.expired = events.onFatal;
    return super.attach(events);
  }

  expire(): void {
    this.expired?.(new RelayError('stop', 'credentials', 'password expired', { advice: 'Renew it.' }));
  }
}

describe('the slot never endangers the database', () => {
  let scene: CaptureScene;
  beforeEach(async () => void (scene = await CaptureScene.open()));
  afterEach(async () => await scene.close());

  const limited = { WAL_RETENTION_LIMIT_BYTES: String(LIMIT_BYTES) };
  const noise = `create table noise as select repeat(md5(n::text), 30) as text from generate_series(1, 20000) n`;

  test('P1 P5 P6 halted by its broker, nobody reads the slot: it is dropped at the limit, and nothing is lost', async () => {
    const publisher = new ExpiringPublisher();
    const relay = await scene.streaming(publisher, limited);
    await scene.insert(3);
    await scene.untilEmpty();
    publisher.expire();
    await relay.logged(/halted: this needs a person/);
    await scene.insert(3, 4);
    await scene.sql(noise);
    await until(async () => (await scene.slot()) === undefined, { what: 'the slot to be dropped' });
    const since = relay.logLines.findIndex((line) => line.includes('halted: this needs'));
    const [told] = relay.logLines.slice(since + 1);
    assert.match(told ?? '', /keeps \d+ bytes of the log/, 'by the guard, not by the next session');
    await relay.stop();
    const next = await scene.streaming(undefined, limited);
    await scene.untilEmpty();
    assert.equal(next.publisher.received.length, 3);
  });

  test('P1 P5 P6 the table is locked, no session gets any further: the slot is dropped at the limit', async () => {
    const relay = await scene.streaming(undefined, limited);
    await scene.insert(3);
    await scene.untilEmpty();
    await withClient(scene.database.url, async (owner) => {
      await owner.query('begin; lock table outbox in access exclusive mode');
      await scene.endWalSender();
      await relay.logged(/the session ended/);
      await scene.sql(noise);
      await until(async () => (await scene.slot()) === undefined, { what: 'the slot to be dropped' });
    });
    await scene.insert(3, 4);
    await scene.untilEmpty(40_000);
    assert.deepEqual(relay.numbers, [1, 2, 3, 4, 5, 6]);
  });

  test('P6 a slot that this outbox had under another name is offered for removal with its statement, and stays', async () => {
    const { name } = scene.database;
    const former = `${name}_former`;
    const first = await scene.streaming(undefined, { SLOT_NAME: former });
    await first.stop();
    const active = 'select active::text from pg_replication_slots where slot_name = $1';
    await until(async () => (await scene.value(active, [former])) === 'false', { what: 'its reader to end' });
    // Somebody else's, whatever its name looks like: no relay of this outbox knows it.
    await scene.makeSlot(`${name}_other`);
    const relay = await scene.streaming();
    const line = await relay.logged(/under another SLOT_NAME/);
    assert.match(line, new RegExp(`"statement":"select pg_drop_replication_slot\\('${former}'\\);"`));
    assert.ok(!line.includes(`${name}_other`), line);
    const slots = await scene.sql<'slot'>(
      'select slot_name as slot from pg_replication_slots where database = current_database() order by 1',
    );
    assert.deepEqual(
      slots.map(({ slot }) => slot),
      [name, former, `${name}_other`],
    );
  });

  test('P5 SLOT_FAILOVER set later: the slot that is there is altered and used on', async () => {
    await scene.handOver();
    assert.equal((await scene.slot())?.failover, false);
    const relay = await scene.streaming(undefined, { SLOT_FAILOVER: 'true' });
    assert.equal((await scene.slot())?.failover, true);
    await relay.logged(/synchronized_standby_slots is empty/);
    assert.ok(!relay.logLines.some((line) => line.includes('making a replication slot')));
  });
});
