-- The relay's own tables. Shared by all outboxes of the schema: every row carries its slot.

-- What is delivered. Written in the transaction that cleans up, and only then is the position acknowledged.
create table if not exists :"schema".outbox_relay_progress (
  slot_name text primary key,
  outbox_table text not null,
  -- Positions mean nothing on another system or timeline. Text: IDENTIFY_SYSTEM prints it unsigned.
  system_identifier text,
  timeline integer,
  -- A slot of the same name that was made again is another slot.
  slot_created_lsn pg_lsn,
  -- Where events come from: 'polling': the table alone; 'table': what `snapshot` sees, then the stream; 'complete': the stream.
  handover text check (handover in ('polling', 'table', 'complete')),
  snapshot text,
  -- Everything that this snapshot sees is delivered: what CLEANUP=none has instead of deleted rows.
  horizon text,
  -- How far the pass over the table has come.
  table_seq bigint,
  -- End of the last commit up to which every event is settled.
  durable_lsn pg_lsn,
  -- Runs of events settled beyond durable_lsn, four numbers a run: seq from, seq to, xid from, xid to.
  beyond bigint[],
  -- With CLEANUP=none: the greatest seq that is settled, from which standbys tell the lag.
  settled_seq bigint not null default -1,
  -- The partition that is being dropped: oid, name, bound. From before it is detached until it is gone.
  dropping jsonb,
  -- The application deletes its rows at once: the table is not the truth.
  deleted_at_once boolean not null default false,
  lease_token bigint not null default 0,
  updated_at timestamptz not null default clock_timestamp()
) with (
  -- Updated with every batch: free space on the page keeps the updates heap-only, without touching the index, and the
  -- dead versions are pruned in passing. The threshold keeps autovacuum at it while a long transaction prevents that.
  fillfactor = 10,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 1000
);

create table if not exists :"schema".outbox_relay_lease (
  slot_name text primary key,
  holder text,
  token bigint not null default 0,
  acquired_at timestamptz,
  renewed_at timestamptz
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create table if not exists :"schema".outbox_relay_dead_letters (
  number bigint generated always as identity primary key,
  slot_name text not null,
  event_id text,
  seq bigint,
  xid bigint,
  destination text,
  key text,
  code text not null,
  reason text not null,
  attempts integer not null,
  -- Column name -> the value's text form, so that the original row can be made again byte for byte. NULL also for a value
  -- that is too large for it: then it stands in outbox_relay_dead_letter_values.
  "row" jsonb not null,
  parked_at timestamptz not null default now(),
  -- An event that comes again after a crash is parked again: harmless.
  unique (seq, xid, slot_name)
);

-- Large values of dead letters, as they were stored: jsonb ends at 256 MB, and text in it at less than a bytea's hex form.
create table if not exists :"schema".outbox_relay_dead_letter_values (
  dead_letter bigint not null references :"schema".outbox_relay_dead_letters on delete cascade,
  column_name text not null,
  -- The value itself: bytea and jsonb as such, every other type in text form.
  as_bytea bytea,
  as_jsonb jsonb,
  as_text text,
  primary key (dead_letter, column_name),
  check (num_nonnulls(as_bytea, as_jsonb, as_text) = 1)
);
-- What was compressed stays so; trying it again with gigabytes would take minutes.
alter table :"schema".outbox_relay_dead_letter_values
  alter as_bytea set storage external, alter as_jsonb set storage external, alter as_text set storage external;
