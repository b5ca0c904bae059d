-- The outbox: applications insert a row in the transaction that changes their data, the relay forwards it.
-- Names are placeholders in the way of psql's variables; `migrate --dry-run` prints the filled text.

-- One explicit sequence: identity columns on partitioned tables need PostgreSQL 17. CACHE 1, because a session that
-- caches numbers hands them out late, and then seq would no longer follow the order of two writers of one key.
create sequence if not exists :"sequence" as bigint cache 1;

create table if not exists :"schema".:"outbox" (
  :"seq" bigint primary key default nextval(:'sequence'),
  -- The message id. Not unique on purpose: an index more costs every writer, and nothing here depends on it.
  :"id" uuid not null default gen_random_uuid(),
  :"aggregatetype" varchar(255) not null,
  :"aggregateid" varchar(255) not null,
  :"type" varchar(255) not null,
  :"payload" jsonb,
  :"headers" jsonb,
  -- The top-level transaction. The system column xmin can't replace it: under a savepoint it is the subtransaction,
  -- for which pg_visible_in_snapshot answers wrongly.
  :"xid" xid8 not null default pg_current_xact_id(),
  :"created_at" timestamptz not null default clock_timestamp(),
  :"delivered_at" timestamptz
) with (
  -- A queue's size says nothing about its churn: a share of an almost empty table would start a vacuum after every few
  -- rows, a share of a long backlog never. So a fixed number of dead rows, for the TOAST table too.
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 10000,
  toast.autovacuum_vacuum_scale_factor = 0,
  toast.autovacuum_vacuum_threshold = 10000,
  -- Truncating the empty end of the file takes an exclusive lock that stalls writers, again and again in a queue.
  -- The pages are reused by the next rows. After an unusual backlog, VACUUM (TRUNCATE) by hand gives the space back.
  vacuum_truncate = false
);

alter sequence :"sequence" owned by :"schema".:"outbox".:"seq";
