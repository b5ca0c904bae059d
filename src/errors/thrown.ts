/** What was thrown may be anything: libraries reject with strings, too. */
export function messageOf(thrown: unknown): string {
  // The error of several addresses that were tried together has an empty message.
  if (thrown instanceof AggregateError && thrown.message === '')
    return thrown.errors.map(messageOf).join('; ');
  return thrown instanceof Error ? thrown.message : String(thrown);
}

export function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
