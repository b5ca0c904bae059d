import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, describe, test } from 'node:test';
import { startPostgres, type PostgresServer } from '../../src/demo/services/postgres.ts';
import { CaptureScene } from '../support/capture.ts';
import { printedIds, streamedTimes, terminated } from '../support/modes.ts';
import type { RelayProcess } from '../support/relay-process.ts';
import { until } from '../support/until.ts';

const MEGABYTE = 1_048_576;
const BEYOND_SENDING = 600 * MEGABYTE;
/** Without any giant it is a third of this; a row of 600 MB held once would be twice as much. */
const MAX_RSS_MB = 300;
/** The server decodes the giant in vain before it says so, which takes it some seconds on a small machine. */
const OTHERS_WITHIN_MS = 30_000;

/** Compressible, so that the server stores and copies little; to print it, it needs all of its size, twice. */
function bytea(bytes: number): string {
  return `convert_to(repeat('x', ${bytes}), 'UTF8')`;
}

function peakRssMb({ pid }: RelayProcess): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Math.round(Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024);
}

async function emit(here: CaptureScene, key: string, payload: string): Promise<string> {
  const sql = `insert into outbox (aggregatetype, aggregateid, type, payload, headers)
               values ('order', $1, 'Placed', ${payload}, '{"a": 9007199254740993}') returning id`;
  return (await here.value(sql, [key])) ?? '';
}

async function parkedWhole(here: CaptureScene, id: string, payload: string): Promise<void> {
  const [letter] = await here.sql(
    `select d.code, d."row" ->> 'aggregateid' as key, d."row" ->> 'headers' as headers, d."row" -> 'payload' as rest,
            v.column_name, (v.as_bytea = ${payload})::text as same
       from outbox_relay_dead_letters d left join outbox_relay_dead_letter_values v on v.dead_letter = d.number
      where d.event_id = $1`,
    [id],
  );
  const whole = { key: 'giant', headers: '{"a": 9007199254740993}', rest: 'null', column_name: 'payload' };
  assert.deepEqual({ ...letter }, { code: 'event-too-large', ...whole, same: 'true' });
}

describe('rows that are too large to be held, or to be sent at all', () => {
  /** No slot is made while a giant's transaction runs: on the shared server others would wait for it. */
  let server: PostgresServer;
  let scene: CaptureScene | undefined;
  let relay: RelayProcess | undefined;

  before(async () => {
    server = await startPostgres();
  });
  after(async () => await server.remove());

  afterEach(async () => {
    await relay?.destroy();
    await scene?.close();
    scene = relay = undefined;
  });

  async function streaming(env: Record<string, string> = {}): Promise<[CaptureScene, RelayProcess]> {
    scene = await CaptureScene.open({ serverUrl: server.url, payload: 'bytea', env });
    await scene.sql('set statement_timeout = 0');
    relay = scene.relayProcess();
    await streamedTimes(relay, 1);
    return [scene, relay];
  }

  test(
    'P1 P7 P10 600 MB that no walsender can send: parked inside the database, other keys delivered, then streaming again',
    { timeout: 180_000 },
    async (context) => {
      const [here, process] = await streaming();
      const first = await emit(here, 'a', `'1'`);
      const giant = await emit(here, 'giant', bytea(BEYOND_SENDING));
      const committedMs = performance.now();
      const others = [await emit(here, 'a', `'2'`), await emit(here, 'b', `'3'`)];
      const all = [first, ...others];
      await until(() => all.every((id) => printedIds(process).includes(id)), {
        timeoutMs: OTHERS_WITHIN_MS,
        what: `other keys to be delivered\n${process.output}`,
      });
      const seconds = (performance.now() - committedMs) / 1000;
      await here.untilEmpty(60_000);
      await streamedTimes(process, 2);
      all.push(await emit(here, 'giant', `'4'`));
      await here.untilEmpty();
      const rss = peakRssMb(process);
      await terminated(process);
      assert.deepEqual(printedIds(process), all, 'each once');
      await parkedWhole(here, giant, bytea(BEYOND_SENDING));
      context.diagnostic(`other keys after ${seconds.toFixed(1)} s; the relay's peak ${rss} MB`);
      assert.ok(rss < MAX_RSS_MB, `${rss} MB`);
    },
  );

  test(
    'P7 P10 what the walsender can send and the relay can not hold: parked whole, the stream goes on',
    { timeout: 90_000 },
    async (context) => {
      const [here, process] = await streaming();
      const giant = await emit(here, 'giant', bytea(150 * MEGABYTE));
      const other = await emit(here, 'a', `'1'`);
      await here.untilEmpty(60_000);
      const rss = peakRssMb(process);
      await terminated(process);
      assert.deepEqual(printedIds(process), [other]);
      await parkedWhole(here, giant, bytea(150 * MEGABYTE));
      assert.equal(process.output.match(/mode: streaming/g)?.length, 1, process.output);
      context.diagnostic(`the relay's peak ${rss} MB`);
      assert.ok(rss < MAX_RSS_MB, `${rss} MB`);
    },
  );

  test(
    'P10 the application deletes it at once: parked with what the stream brought, and the reason says what is missing',
    { timeout: 90_000 },
    async () => {
      const [here, process] = await streaming();
      await here.client.query('begin');
      const large = await emit(here, 'large', bytea(12 * MEGABYTE));
      const giant = await emit(here, 'giant', bytea(50 * MEGABYTE));
      await here.client.query('delete from outbox; commit');
      const letters = async (): Promise<Record<string, string | null>[]> =>
        await here.sql(
          `select event_id, "row" ->> 'aggregateid' as key, reason ~ 'was deleted' as told,
                  "row" ->> 'payload' = ${bytea(12 * MEGABYTE)}::text as payload
             from outbox_relay_dead_letters order by number`,
        );
      await until(async () => (await here.count('outbox_relay_dead_letters')) === 2, {
        what: `two dead letters\n${process.output}`,
        timeoutMs: 30_000,
      });
      const found = (await letters()).toSorted((a, b) => String(b['key']).localeCompare(String(a['key'])));
      assert.deepEqual(
        found.map((row) => Object.values(row)),
        [
          [large, 'large', 'f', 't'],
          [giant, 'giant', 't', null],
        ],
      );
      await terminated(process);
      assert.deepEqual(printedIds(process), []);
    },
  );
});
