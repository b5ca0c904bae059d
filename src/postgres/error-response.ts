import { DatabaseError } from 'pg';

/** What the server said on a replication stream. */
export class StreamedError extends DatabaseError {}

/**
 * Reads an ErrorResponse message into the error that `pg` itself would throw.
 * Fields: https://www.postgresql.org/docs/current/protocol-error-fields.html
 */
export function readErrorResponse(buffer: Buffer, start: number, end: number): StreamedError {
  const fields = new Map<string, string>();
  let offset = start;
  while (offset < end && buffer[offset] !== 0) {
    const terminator = buffer.indexOf(0, offset + 1);
    fields.set(
      String.fromCharCode(buffer[offset] as number),
      buffer.toString('utf8', offset + 1, terminator),
    );
    offset = terminator + 1;
  }
  const error = new StreamedError(fields.get('M') ?? 'unknown error', end - start, 'error');
  error.severity = fields.get('S');
  error.code = fields.get('C');
  error.detail = fields.get('D');
  error.hint = fields.get('H');
  return error;
}
