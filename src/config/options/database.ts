import * as format from '../formats.ts';
import type { Option } from './option.ts';

/** Where the rows are and how they are captured. */
export const DATABASE_OPTIONS = {
  DATABASE_URL: {
    group: 'database',
    doc: 'Connection of the relay, postgresql://user:password@host:port/database?sslmode=…; what it leaves open is taken from the PG* variables. Through a pooler the table is polled: name PostgreSQL itself to stream.',
    default: null,
    format: format.text,
    secret: 'url',
    file: true,
  },
  DATABASE_PASSWORD: {
    group: 'database',
    doc: 'Replaces the password of DATABASE_URL.',
    default: null,
    format: format.text,
    secret: true,
    file: true,
  },
  PGHOST: {
    group: 'database',
    doc: 'Host name, address, or folder of the Unix socket.',
    default: 'localhost',
    format: format.text,
  },
  PGPORT: { group: 'database', doc: 'Port.', default: '5432', format: format.integer(1, 65_535) },
  PGUSER: {
    group: 'database',
    doc: "Role; without it the name of the operating system's user.",
    default: null,
    format: format.text,
  },
  PGPASSWORD: { group: 'database', doc: 'Password.', default: null, format: format.text, secret: true },
  PGDATABASE: {
    group: 'database',
    doc: 'Database; without it the name of the role.',
    default: null,
    format: format.text,
  },
  PGSSLMODE: {
    group: 'database',
    doc: 'What libpq means by it: disable, allow, prefer, require, verify-ca or verify-full. Only the last two protect against an impostor. prefer when nothing is set.',
    default: null,
    format: format.oneOf(['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full']),
  },
  PGSSLROOTCERT: {
    group: 'database',
    doc: 'File with the authorities that may have signed the server\'s certificate, or "system" for those of the system (then sslmode is verify-full).',
    default: null,
    format: format.text,
  },
  PGSSLCERT: {
    group: 'database',
    doc: 'File with the client certificate.',
    default: null,
    format: format.text,
  },
  PGSSLKEY: {
    group: 'database',
    doc: 'File with the key of the client certificate.',
    default: null,
    format: format.text,
  },
  PGCONNECT_TIMEOUT: {
    group: 'database',
    doc: 'Seconds for a connection to be made.',
    default: '10',
    format: format.integer(1, 3600),
  },

  OUTBOX_TABLE: {
    group: 'outbox',
    doc: 'Table or schema.table, as in SQL: unquoted names are folded to lower case, "Quoted" ones are not.',
    default: 'public.outbox',
    format: format.qualifiedName,
  },
  OUTBOX_ID_COLUMN: column('id', 'Message id for consumers.'),
  OUTBOX_AGGREGATE_TYPE_COLUMN: column(
    'aggregatetype',
    'Kind of the thing the event is about; names the topic by default.',
  ),
  OUTBOX_AGGREGATE_ID_COLUMN: column(
    'aggregateid',
    'The thing the event is about; the ordering key by default.',
  ),
  OUTBOX_TYPE_COLUMN: column('type', 'Type of the event.'),
  OUTBOX_PAYLOAD_COLUMN: column('payload', 'Body, sent byte for byte as stored.'),
  OUTBOX_HEADERS_COLUMN: column('headers', 'Headers of the message, a JSON object.'),
  OUTBOX_SEQ_COLUMN: column('seq', 'Number that orders the rows.'),
  OUTBOX_XID_COLUMN: column('xid', 'Transaction of the row, default pg_current_xact_id().'),
  OUTBOX_CREATED_AT_COLUMN: column('created_at', 'Time of the event.'),
  OUTBOX_DELIVERED_AT_COLUMN: column('delivered_at', 'Time of delivery, for CLEANUP=mark.'),

  SOURCE: {
    group: 'source',
    doc: 'How rows are captured. auto: by logical replication, by polling the table where and while that cannot work; streaming, polling: that way or not at all.',
    default: 'auto',
    format: format.oneOf(['auto', 'streaming', 'polling']),
  },
  NOTIFY_CHANNEL: {
    group: 'source',
    doc: 'Channel on which writers notify, so that polling looks at once instead of within 0.2 s. Needs a connection without a pooler.',
    default: null,
    format: format.identifier,
  },
  WAL_RETENTION_LIMIT_BYTES: {
    group: 'source',
    doc: 'When the slot keeps more of the log than this, auto gives it up and polls until the backlog is gone; streaming only warns.',
    default: '4GiB',
    format: format.bytes(1024 * 1024),
  },
  SLOT_NAME: {
    group: 'source',
    doc: 'Replication slot, made when missing. Replicas share it; every other outbox of the same server needs a name of its own.',
    default: 'outbox_relay',
    format: format.slotName,
  },
  DELETED_AT_ONCE: {
    group: 'source',
    doc: 'The application deletes a row as soon as it has inserted it, so that the table can not stand in for the slot: yes, no, or auto, which notices it.',
    default: 'auto',
    format: format.oneOf(['auto', 'yes', 'no']),
  },
  SLOT_FAILOVER: {
    group: 'source',
    doc: 'The slot waits for the standbys in synchronized_standby_slots, so that nothing is streamed that a failover takes back (PostgreSQL 17 and later).',
    default: 'false',
    format: format.boolean,
  },
  PUBLICATION_NAME: {
    group: 'source',
    doc: "Publication of the outbox table's inserts, made by migrate, or by run where it is missing and the role may.",
    default: 'outbox_relay',
    format: format.identifier,
  },
  CLEANUP: {
    group: 'source',
    doc: 'What happens to a delivered row: delete, mark (sets the delivered_at column) or none (partitions are dropped instead).',
    default: 'delete',
    format: format.oneOf(['delete', 'mark', 'none']),
  },
  MARK_RETENTION: {
    group: 'source',
    doc: 'With CLEANUP=mark: rows that were delivered longer ago than this are deleted, such as 12h or 7d; without it they are kept for ever.',
    default: null,
    format: format.duration(1_000),
  },
  PARTITION_RETENTION: {
    group: 'source',
    doc: 'Partitions whose range ended longer ago than this, and in which everything is delivered or parked, are dropped, such as 12h or 7d; without it none is. Longer than any transaction that writes events.',
    default: null,
    format: format.duration(1_000),
  },
} as const satisfies Record<string, Option>;

function column<const D extends string>(name: D, doc: string) {
  return { group: 'outbox', doc, default: name, format: format.identifier } as const;
}
