import { Client } from 'pg';
import { withClient } from '../../support/database.ts';
import { until } from '../../support/until.ts';
import type { Parked, Truth } from './checker.ts';
import type { Load } from './schedule.ts';

/**
 * The database's own history: every writer notes an event in the transaction that inserts it, while it holds the lock on
 * the event's key, so that the number follows the order of commits of that key. What a crash took back is not in it,
 * and whether a commit without an answer happened, it tells.
 */
const JOURNAL = `create table journal (number bigserial primary key, id uuid not null, aggregate text not null, key text not null,
  digest text not null, poison boolean not null, written timestamptz not null default clock_timestamp())`;

export async function createJournal(url: string): Promise<void> {
  await withClient(url, async (client) => await client.query(JOURNAL));
}

/** For other payloads than the default: `migrate` takes the table as it finds it. */
export async function createOutbox(url: string, payloadType: Load['payloadType']): Promise<void> {
  if (payloadType === 'jsonb') return;
  await withClient(
    url,
    async (client) =>
      await client.query(`create sequence outbox_seq;
        create table outbox (seq bigint primary key default nextval('outbox_seq'), id uuid not null default gen_random_uuid(),
          aggregatetype varchar(255) not null, aggregateid varchar(255) not null, type varchar(255) not null,
          payload ${payloadType}, headers jsonb, xid xid8 not null default pg_current_xact_id(),
          created_at timestamptz not null default clock_timestamp(), delivered_at timestamptz);
        alter sequence outbox_seq owned by outbox.seq`),
  );
}

export interface Event {
  readonly aggregate: string;
  readonly key: string;
  readonly type: string;
  readonly trace: string;
  /** Without a single quote or a backslash. */
  readonly payload: string;
  readonly poison: boolean;
}

/** SQL that inserts one event and notes it. */
export function emit(event: Event, payloadType: Load['payloadType']): string {
  const { aggregate, key, type, trace, payload, poison } = event;
  const value = payloadType === 'bytea' ? `convert_to('${payload}', 'UTF8')` : `'${payload}'::${payloadType}`;
  const bytes = payloadType === 'bytea' ? value : `convert_to(${value}::text, 'UTF8')`;
  const digest = `'${type} ${trace} ' || encode(sha256(${bytes}), 'hex')`;
  return `with e as (select outbox_emit('${aggregate}', '${key}', '${type}', ${value}, '{"trace": "${trace}"}') as id)
    insert into journal (id, aggregate, key, digest, poison)
    select e.id, '${aggregate}', '${key}', ${digest}, ${poison} from e;`;
}

export async function readTruth(client: Client): Promise<Truth[]> {
  const { rows } = await client.query<
    Record<'number' | 'id' | 'aggregate' | 'key' | 'digest' | 'ms', string> & { poison: boolean }
  >(
    `select number, id, aggregate, key, digest, poison, extract(epoch from written) * 1000 as ms from journal order by number`,
  );
  return rows.map(({ number, id, aggregate, key, digest, poison, ms }) => ({
    number: Number(number),
    id,
    destination: aggregate,
    key,
    digest,
    poison,
    writtenMs: Number(ms),
  }));
}

/** The complete row has to be there, whichever way it is kept. */
export async function readParked(client: Client, payloadType: Load['payloadType']): Promise<Parked[]> {
  const bytes =
    payloadType === 'bytea'
      ? `coalesce(("row"->>'payload')::bytea, v.as_bytea)`
      : `convert_to(coalesce("row"->>'payload', v.as_jsonb::text, v.as_text), 'UTF8')`;
  const { rows } = await client.query<Record<'id' | 'code' | 'digest', string>>(
    `select event_id as id, code, ("row"->>'type') || ' ' || (("row"->>'headers')::jsonb->>'trace') || ' '
            || coalesce(encode(sha256(${bytes}), 'hex'), 'null') as digest
       from outbox_relay_dead_letters d
       left join outbox_relay_dead_letter_values v on v.dead_letter = d.number and v.column_name = 'payload'`,
  );
  return rows;
}

/** Waits until nothing does any more: what still waits when the time is over, or else when it was seen to be over. */
export async function drained(
  url: string,
  timeoutMs: number,
): Promise<{ waiting: readonly string[]; drainedMs: number | undefined }> {
  let waiting: string[] = [];
  const empty = async (): Promise<boolean> => {
    waiting = await withClient(url, readWaiting);
    return waiting.length === 0;
  };
  const over = await until(empty, { what: 'everything to be delivered', timeoutMs }).catch(() => false);
  return { waiting, drainedMs: over ? Date.now() : undefined };
}

/** Ids of rows that are neither delivered nor parked, a few. */
async function readWaiting(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ id: string }>(
    'select id from outbox where delivered_at is null order by seq limit 100',
  );
  return rows.map(({ id }) => id);
}
