import type { Relation } from './tuple-row.ts';

/**
 * What the stream's messages mean, of those that the relay uses. Format of `pgoutput`, protocol 1:
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
export interface PgoutputHandler {
  begin(xid: number, committedAtMs: number): void;
  /** Before the relation that uses it; schema and name of a domain are those of the type below. */
  type(oid: number, schema: string, name: string): void;
  relation(relation: Relation): void;
  /** `leftOutBytes`: of values that were too large to be read; they are NULL in the tuple. */
  insert(relationOid: number, buffer: Buffer, start: number, end: number, leftOutBytes: number): void;
  commit(endLsn: bigint): void;
}

/** Microseconds between the Unix epoch and PostgreSQL's, 2000-01-01. */
const POSTGRES_EPOCH_MS = 946_684_800_000;

const BEGIN = 0x42; // B
const COMMIT = 0x43; // C
const RELATION = 0x52; // R
const TYPE = 0x59; // Y
const INSERT = 0x49; // I
const NEW_TUPLE = 0x4e; // N

/** Milliseconds since the Unix epoch of a server time stamp (microseconds since 2000, 64 bit). */
export function readServerTimeMs(buffer: Buffer, offset: number): number {
  const micros = buffer.readInt32BE(offset) * 4_294_967_296 + buffer.readUInt32BE(offset + 4);
  return POSTGRES_EPOCH_MS + micros / 1000;
}

/** Microseconds since 2000 of milliseconds since the Unix epoch, whole ones. */
export function toServerTime(unixMs: number): bigint {
  return BigInt(unixMs - POSTGRES_EPOCH_MS) * 1000n;
}

/**
 * Dispatches one pgoutput message. Other kinds (origin, message, update, delete, truncate, and any that a later
 * server may add) bring no outbox row under protocol 1 and are passed over: failing on them would end in a crash loop.
 */
export function decodePgoutput(
  handler: PgoutputHandler,
  buffer: Buffer,
  start: number,
  end: number,
  leftOutBytes = 0,
): void {
  switch (buffer[start] as number) {
    case INSERT:
      if (buffer[start + 5] !== NEW_TUPLE) throw new TypeError('pgoutput: insert without a new tuple');
      handler.insert(buffer.readUInt32BE(start + 1), buffer, start + 6, end, leftOutBytes);
      break;
    case BEGIN:
      handler.begin(buffer.readUInt32BE(start + 17), readServerTimeMs(buffer, start + 9));
      break;
    case COMMIT:
      handler.commit(buffer.readBigUInt64BE(start + 10));
      break;
    case RELATION:
      handler.relation(decodeRelation(buffer, start + 1));
      break;
    case TYPE: {
      const terminator = buffer.indexOf(0, start + 5);
      const schema = buffer.toString('utf8', start + 5, terminator);
      const name = buffer.toString('utf8', terminator + 1, buffer.indexOf(0, terminator + 1));
      handler.type(buffer.readUInt32BE(start + 1), schema, name);
      break;
    }
    default:
      break;
  }
}

function decodeRelation(buffer: Buffer, start: number): Relation {
  let offset = start + 4;
  const nextString = (): string => {
    const terminator = buffer.indexOf(0, offset);
    const text = buffer.toString('utf8', offset, terminator);
    offset = terminator + 1;
    return text;
  };
  const schema = nextString();
  const table = nextString();
  offset += 1; // replica identity
  const count = buffer.readUInt16BE(offset);
  offset += 2;
  const columns: string[] = [];
  const typeOids: number[] = [];
  for (let i = 0; i < count; i++) {
    offset += 1; // flags
    columns.push(nextString());
    typeOids.push(buffer.readUInt32BE(offset));
    offset += 8; // type and its modifier
  }
  const indexOf = new Map(columns.map((name, index) => [name, index]));
  return { oid: buffer.readUInt32BE(start), schema, table, columns, typeOids, indexOf };
}
