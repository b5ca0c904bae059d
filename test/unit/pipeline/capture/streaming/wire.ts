/** pgoutput, protocol 1, and the frames around it, made by hand from the documentation. */

const POSTGRES_EPOCH_MS = 946_684_800_000;

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

function int64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt.asIntN(64, value));
  return bytes;
}

function serverTime(ms: number): Buffer {
  return int64(BigInt(Math.round((ms - POSTGRES_EPOCH_MS) * 1_000)));
}

function text(value: string): Buffer {
  return Buffer.from(`${value}\0`);
}

export interface WireColumn {
  readonly name: string;
  readonly oid: number;
}

export interface WireRelation {
  readonly oid: number;
  readonly schema: string;
  readonly table: string;
  readonly columns: readonly WireColumn[];
}

export function beginMessage(finalLsn: bigint, committedAtMs: number, xid: number): Buffer {
  return Buffer.concat([Buffer.from('B'), int64(finalLsn), serverTime(committedAtMs), int32(xid)]);
}

export function commitMessage(commitLsn: bigint, endLsn: bigint, committedAtMs: number): Buffer {
  return Buffer.concat([Buffer.from('C\0'), int64(commitLsn), int64(endLsn), serverTime(committedAtMs)]);
}

export function relationMessage({ oid, schema, table, columns }: WireRelation): Buffer {
  return Buffer.concat([
    Buffer.from('R'),
    int32(oid),
    text(schema),
    text(table),
    Buffer.from('d'),
    int16(columns.length),
    ...columns.flatMap((column, i) => [
      Buffer.from([i === 0 ? 1 : 0]),
      text(column.name),
      int32(column.oid),
      int32(-1),
    ]),
  ]);
}

export function typeMessage(oid: number, schema: string, name: string): Buffer {
  return Buffer.concat([Buffer.from('Y'), int32(oid), text(schema), text(name)]);
}

export function insertMessage(relationOid: number, values: readonly (string | Buffer | null)[]): Buffer {
  return Buffer.concat([
    Buffer.from('I'),
    int32(relationOid),
    Buffer.from('N'),
    int16(values.length),
    ...values.flatMap((value) => {
      if (value === null) return [Buffer.from('n')];
      const bytes = Buffer.from(value);
      return [Buffer.from('t'), int32(bytes.length), bytes];
    }),
  ]);
}

/** One backend message: type, length that counts itself, body. */
export function frame(type: string, body: Buffer): Buffer {
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body]);
}
