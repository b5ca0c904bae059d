import type { Client } from 'pg';
import type { Config } from '../../../config/config.ts';
import { faultPoint } from '../../../lifecycle/fault-point.ts';
import type { Batch, Source } from '../source.ts';
import { TableReader } from './table-reader.ts';
import type { WantedRows } from './wanted-rows.ts';

export interface TablePassOptions {
  readonly config: Config;
  readonly client: Client;
  readonly rows: WantedRows;
  /** Delivered up to here by an earlier run of the same pass. */
  readonly afterSeq: number;
}

/**
 * Delivers what a fixed snapshot sees, once, by `seq`. The set can't change any more, so that a cursor over `seq` is
 * exact here, which it never is over a table that is being written.
 */
export class TablePass implements Source {
  private readonly options: TablePassOptions;

  constructor(options: TablePassOptions) {
    this.options = options;
  }

  async *batches(signal: AbortSignal): AsyncGenerator<Batch> {
    const { config, client, rows, afterSeq } = this.options;
    const reader = new TableReader(config, client);
    let after = afterSeq;
    for (let last = false; !last && !signal.aborted;) {
      // Found out before its rows are read: what is removed meanwhile must not move it beyond rows that are still to come.
      const end = 'seqs' in rows ? undefined : await reader.endOfRange(after);
      for (;;) {
        const page = await reader.nextPage(rows, { after, upTo: end });
        if (page.length === 0 || signal.aborted) break;
        for await (const batch of reader.fetch(page, signal)) {
          faultPoint('during-table-pass');
          yield batch;
        }
        after = page.at(-1)?.seq ?? after;
      }
      last = end === undefined;
      after = end ?? after;
    }
  }

  acknowledge(): void {
    // The progress row is the acknowledgement.
  }
}
