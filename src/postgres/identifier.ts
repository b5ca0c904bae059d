/** `my table` → `"my table"`, safe in any statement. */
export function quoteIdentifier(name: string): string {
  if (name === '' || name.includes('\0'))
    throw new TypeError('an identifier must have characters, and none of them NUL');
  return `"${name.replaceAll('"', '""')}"`;
}

/** `it's` → `'it''s'`, safe whatever standard_conforming_strings says. */
export function quoteLiteral(value: string): string {
  const quoted = `'${value.replaceAll("'", "''")}'`;
  return value.includes('\\') ? ` E${quoted.replaceAll('\\', '\\\\')}` : quoted;
}

/** Schema and name as one quoted, qualified name. */
export function qualified(schema: string, name: string): string {
  return `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`;
}

/** PostgreSQL cuts longer names off silently, so that a derived name could be that of its table. */
const MAX_IDENTIFIER_BYTES = 63;

/** `outbox`, `_seq` → `outbox_seq`, shortened at a character so that the suffix always survives. */
export function derivedName(base: string, suffix: string): string {
  let stem = base;
  while (Buffer.byteLength(stem + suffix) > MAX_IDENTIFIER_BYTES)
    stem = Array.from(stem).slice(0, -1).join('');
  return stem + suffix;
}

/**
 * Fills `:"name"` with the quoted identifier (several parts: a qualified name) and `:'name'` with the quoted literal.
 * Throws on an unknown name, and on a value that could end a function's body.
 */
export function fillTemplate(
  sql: string,
  values: Readonly<Record<string, string | readonly string[]>>,
): string {
  return sql.replaceAll(/(?<!:):(["'])(\w+)\1/g, (placeholder, quote: string, name: string) => {
    const value = values[name];
    if (value === undefined) throw new TypeError(`no value for ${placeholder}`);
    const parts = typeof value === 'string' ? [value] : value;
    if (parts.some((part) => part.includes('$body$'))) throw new TypeError('a name must not contain $body$');
    const identifier = parts.map(quoteIdentifier).join('.');
    return quote === '"' ? identifier : quoteLiteral(typeof value === 'string' ? value : identifier);
  });
}
