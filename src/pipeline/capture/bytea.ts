export const BYTEA_OID = 17;

/** Decodes `bytea` in PostgreSQL's hex text form (`\x…`), which the session settings fix for both sources. */
export function decodeHexBytea(text: string): Buffer {
  if (!text.startsWith('\\x')) throw new TypeError('bytea is not in hex form; bytea_output must be hex');
  return Buffer.from(text.slice(2), 'hex');
}
