export const BYTEA_OID = 17;

const BACKSLASH = 0x5c;
const LOWER_X = 0x78;

/** Decodes `bytea` in PostgreSQL's hex text form (`\x…`), which the session settings fix for both sources. */
export function decodeHexBytea(text: Buffer): Buffer {
  if (text[0] !== BACKSLASH || text[1] !== LOWER_X) {
    throw new TypeError('bytea is not in hex form; bytea_output must be hex');
  }
  return Buffer.from(text.toString('latin1', 2), 'hex');
}
