/** The column's default. */
export const NO_HEADERS = '{}';

/**
 * Reads the `headers` column: a JSON object whose values become header texts. Strings are taken as they are, numbers
 * with their own digits (never through a double), other values as their JSON text, nulls are left out: no broker
 * client takes them. Returns a text when it is not an object.
 */
export function parseHeaders(
  json: string | null | undefined,
): Readonly<Record<string, string>> | undefined | string {
  if (json === null || json === undefined || json === NO_HEADERS) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(json, keepDigits);
  } catch (error) {
    return `headers are not JSON: ${(error as Error).message}`;
  }
  if (parsed === null) return undefined;
  if (typeof parsed !== 'object' || Array.isArray(parsed) || RawJson.isRawJSON(parsed)) {
    return 'headers are not a JSON object';
  }
  const headers: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [name, value] of Object.entries(parsed)) {
    if (value === null) continue;
    headers[name] = typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
  }
  return headers;
}

/** In Node since 21; TypeScript's library does not know it yet. */
const RawJson = JSON as unknown as { rawJSON(text: string): unknown; isRawJSON(value: unknown): boolean };

function keepDigits(this: unknown, _key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== 'number' || context?.source === undefined) return value;
  // Prints the number's own text again.
  return RawJson.rawJSON(context.source);
}
