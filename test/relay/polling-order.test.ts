import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Client } from 'pg';
import { withClient } from '../support/database.ts';
import { printedIds, settled, terminated } from '../support/modes.ts';
import { openOutbox, type Outbox } from '../support/outbox.ts';
import { RelayProcess } from '../support/relay-process.ts';

/** The first event may be found in time by chance, but not in every round. */
const ROUNDS = 20;
/** More than the rows of one page. */
const BACKLOG = 2_500;

async function emit(client: Client, key: string): Promise<string> {
  const { rows } = await client.query<{ id: string }>(
    `select outbox_emit('thing', $1, 'Happened', '1')::text as id`,
    [key],
  );
  return rows[0]?.id ?? '';
}

async function withRelay(
  fault: string | undefined,
  run: (parts: { outbox: Outbox; start: () => RelayProcess; first: Client; second: Client }) => Promise<void>,
): Promise<void> {
  const outbox = await openOutbox();
  const env = { ...outbox.env, SOURCE: 'polling', BROKER: 'stdout' };
  let relay: RelayProcess | undefined;
  const start = (): RelayProcess => {
    relay = RelayProcess.start({ env, ...(fault !== undefined && { fault }) });
    return relay;
  };
  try {
    await withClient(outbox.url, async (first) => {
      await withClient(outbox.url, async (second) => await run({ outbox, start, first, second }));
    });
  } finally {
    await relay?.destroy();
    await outbox.drop();
  }
}

/** What a poll sees must not depend on how far an earlier one has read: a number is drawn before it can be seen. */
describe('P3 SOURCE=polling keeps the order of a key whose first event was passed by others', () => {
  test(
    'passed within a look: the next one sees both, and not only the second',
    { timeout: 60_000 },
    async () => {
      await withRelay(undefined, async ({ outbox, start, first, second }) => {
        const relay = start();
        const committed: string[] = [];
        for (let round = 0; round < ROUNDS; round++) {
          await first.query('begin');
          committed.push(await emit(first, 'a'));
          const passing = await outbox.emit('thing', 'b', round);
          // It waits for the lock of the key, and commits as soon as the first one has.
          const following = emit(second, 'a');
          await relay.waitForLine(new RegExp(passing));
          await first.query('commit');
          committed.push(await following);
          await settled(outbox.url);
        }
        await terminated(relay);
        const ofKey = new Set(committed);
        assert.deepEqual(
          printedIds(relay).filter((id) => ofKey.has(id)),
          committed,
        );
      });
    },
  );

  test('passed between two pages of one look', { timeout: 60_000 }, async () => {
    await withRelay('during-poll:stop:1', async ({ outbox, start, first, second }) => {
      await first.query('begin');
      const committed = [await emit(first, 'a')];
      await outbox.sql(
        `select outbox_emit('thing', 'b' || n, 'Happened', '1') from generate_series(1, $1::int) n`,
        [BACKLOG],
      );
      const relay = start();
      // It has read the first page and stands still.
      await relay.waitForLine(/fault-point during-poll/);
      await relay.untilStopped();
      await first.query('commit');
      committed.push(await emit(second, 'a'));
      relay.kill('SIGCONT');
      await settled(outbox.url);
      await terminated(relay);
      const ofKey = new Set(committed);
      const printed = printedIds(relay);
      assert.equal(printed.length, BACKLOG + 2);
      assert.deepEqual(
        printed.filter((id) => ofKey.has(id)),
        committed,
      );
    });
  });
});
