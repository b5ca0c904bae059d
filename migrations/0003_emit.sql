-- One event in one call, from any language:
--   select outbox_emit('order', '42', 'OrderPlaced', '{"total": 10}');
-- The lock on the key is taken before seq is drawn and held until the transaction ends, so that for each key the order
-- of seq is the order of commit. Names are written out: the function works under every search_path.
create or replace function :"schema".:"emit"(
  aggregatetype text,
  aggregateid text,
  type text,
  payload :"payload_type",
  headers jsonb default null
) returns uuid
language plpgsql
as $body$
declare
  -- Drawn here: a table made for Debezium has no default for it.
  event_id uuid := pg_catalog.gen_random_uuid();
begin
  perform pg_catalog.pg_advisory_xact_lock(
    pg_catalog.hashtextextended(aggregatetype, pg_catalog.hashtextextended(aggregateid, 0))
  );
  insert into :"schema".:"outbox" (:"id", :"aggregatetype", :"aggregateid", :"type", :"payload", :"headers")
  values (event_id, aggregatetype, aggregateid, type, payload, headers);
  return event_id;
end
$body$;

-- Marks it as ours: `migrate` replaces no function without this comment.
comment on function :"schema".:"emit"(text, text, text, :"payload_type", jsonb) is 'Made by outbox-relay migrate';

-- Offered, not installed: the same lock for plain inserts. A default is evaluated before a BEFORE trigger runs, so the
-- trigger draws a new seq after it holds the lock. To use it:
--   create trigger lock_key before insert on <outbox> for each row execute function outbox_lock_key();
create or replace function :"schema".:"lock_key"() returns trigger
language plpgsql
as $body$
begin
  perform pg_catalog.pg_advisory_xact_lock(
    pg_catalog.hashtextextended(new.:"aggregatetype", pg_catalog.hashtextextended(new.:"aggregateid", 0))
  );
  new.:"seq" := pg_catalog.nextval(:'sequence');
  return new;
end
$body$;

comment on function :"schema".:"lock_key"() is 'Made by outbox-relay migrate';
