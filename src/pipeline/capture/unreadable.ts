import { classify } from '../../errors/policy.ts';
import { StreamedError } from '../../postgres/error-response.ts';

/** Classes of SQLSTATE that say something about what is sent; all others are about the connection, a role, a name. */
const ABOUT_THE_DATA = /^(?:22|53200|54|XX)/;
/** A row whose text form is larger than PostgreSQL can allocate: no second attempt ends otherwise. */
const TOO_LARGE_TO_SEND = /^(?:54000|XX000)$/;
const ALLOCATION = /invalid memory alloc request size|string buffer exceeds|enlarge string buffer/;

/**
 * Before version 18 PostgreSQL refuses to decode what was written while the publication did not exist, also after it was
 * made again; and where somebody removed the log by hand, the catalog need not know that the slot is lost.
 */
const ENDS_FOR_EVER: ReadonlySet<string> = new Set(['publication-missing', 'slot-lost']);

/** Whether each further stream ends like this one, unless somebody mends what is missing. */
export function endsForEver(error: unknown): boolean {
  return ENDS_FOR_EVER.has(classify(error).code);
}

interface Failure {
  readonly position: bigint;
  readonly message: string;
}

/**
 * Tells a stream that only broke from one that ends at the same place for ever: the walsender can't send a row of more
 * than 1 GiB in text form, and every new one ends there again. Pure; kept over sessions.
 */
export class StreamFailures {
  private last: Failure | undefined;
  /** About tables in the stream: what a session was ended for once, to look into the catalog. */
  readonly asked = new Map<string, string>();

  /** `position`: what is settled. Whether a stream from there can never pass this error, so that it must be left. */
  neverPasses(error: unknown, position: bigint): boolean {
    if (!(error instanceof StreamedError) || !ABOUT_THE_DATA.test(error.code ?? '')) return false;
    const { message, code = '' } = error;
    const again = this.last?.message === message && this.last.position === position;
    this.last = { position, message };
    return again || (TOO_LARGE_TO_SEND.test(code) && ALLOCATION.test(message));
  }
}
