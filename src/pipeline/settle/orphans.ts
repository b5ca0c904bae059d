import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { RelayError } from '../../errors/errors.ts';
import { qualified, quoteIdentifier } from '../../postgres/identifier.ts';
import { isUndelivered } from '../../postgres/undelivered.ts';
import { parseLsn } from '../../postgres/lsn.ts';
import { publicationCovers } from '../../postgres/publication.ts';
import { TablePass } from '../capture/polling/table-pass.ts';
import { BEFORE_ALL } from '../capture/polling/table-reader.ts';
import type { OutboxEvent } from '../capture/event.ts';
import type { Settlement } from './settlement.ts';

const MAX_ORPHANS_PER_SWEEP = 1_000;
/** Orphans pass the in-flight window by: this bounds their memory. */
const MAX_BYTES_PER_SWEEP = 16 * 1_048_576;

interface Candidate {
  readonly snapshot: string;
  readonly insertLsn: bigint;
  /** Undelivered rows that the snapshot sees, the oldest of them. */
  readonly seqs: readonly number[];
}

export interface OrphanSweepOptions {
  readonly config: Config;
  readonly settlement: Settlement;
  /** Notes that everything which this snapshot sees is delivered. */
  readonly moveHorizon: (snapshot: string) => Promise<void>;
}

/**
 * Looks for rows that the stream never brought: from a restored dump, an attached partition, a time when the
 * publication did not cover the table.
 *
 * One statement sees the oldest undelivered rows and then reads the end of the log: all of them were committed before
 * that position. Once the stream has settled everything up to there, one that is still undelivered can't come any more.
 * The rows are named, not judged by their transaction ids: those of a restored dump mean nothing here.
 */
export class OrphanSweep {
  private readonly options: OrphanSweepOptions;
  private readonly settlement: Settlement;
  private candidate: Candidate | undefined;
  private delivering: readonly OutboxEvent[] = [];

  constructor(options: OrphanSweepOptions) {
    this.options = options;
    this.settlement = options.settlement;
  }

  /** One step; call it from a timer. Returns the orphans that are to be delivered, which are few or none. */
  async step(client: Client, signal: AbortSignal): Promise<readonly OutboxEvent[]> {
    if (this.delivering.some(({ transaction }) => transaction.outstanding > 0)) return [];
    this.candidate ??= await this.takeCandidate(client);
    if (!this.settlement.hasRemovedUpTo(this.candidate.insertLsn)) return [];
    const { snapshot, seqs } = this.candidate;
    this.candidate = undefined;
    // Delivered rows stay in the table without a mark: nothing tells an orphan from them. But now all is delivered that
    // the snapshot sees, so that a later hand-over need not deliver it again.
    if (this.options.config.cleanup === 'none') {
      await this.assertCovered(client);
      await this.options.moveHorizon(snapshot);
    } else if (seqs.length > 0) this.delivering = await this.find(client, seqs, signal);
    return this.delivering;
  }

  private async find(client: Client, seqs: readonly number[], signal: AbortSignal): Promise<OutboxEvent[]> {
    const pass = new TablePass({
      config: this.options.config,
      client,
      rows: { seqs },
      afterSeq: BEFORE_ALL,
    });
    const found: OutboxEvent[] = [];
    let bytes = 0;
    for await (const batch of pass.batches(signal)) {
      found.push(...batch.events);
      bytes += batch.events.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      if (bytes >= MAX_BYTES_PER_SWEEP) break;
    }
    if (found.length > 0) await this.assertCovered(client);
    return found;
  }

  /** Otherwise the sweep would go on as a slow substitute for the stream; the next session makes the publication whole. */
  private async assertCovered(client: Client): Promise<void> {
    const { outbox, publicationName } = this.options.config;
    if (await publicationCovers(client, outbox, publicationName)) return;
    throw new RelayError(
      'retry',
      'publication-uncovered',
      `publication ${publicationName} no longer has the outbox`,
      {
        advice:
          'The relay repairs it when it connects again; what was written meanwhile is delivered from the table.',
      },
    );
  }

  /** In one statement: the position is read after its snapshot was taken. The write position would be too early. */
  private async takeCandidate(client: Client): Promise<Candidate> {
    const { rows } = await client.query<{ snapshot: string; lsn: string; seqs: string }>(
      `select pg_current_snapshot()::text as snapshot, ${this.undelivered()} as seqs,
              pg_current_wal_insert_lsn()::text as lsn`,
    );
    const row = rows[0] as { snapshot: string; lsn: string; seqs: string };
    const seqs = row.seqs === '' ? [] : row.seqs.split(',').map(Number);
    return { snapshot: row.snapshot, insertLsn: parseLsn(row.lsn), seqs };
  }

  private undelivered(): string {
    const { cleanup, outbox } = this.options.config;
    if (cleanup === 'none') return `''`;
    const seq = quoteIdentifier(outbox.columns.seq);
    return `array_to_string(array(select ${seq} from ${qualified(outbox.schema, outbox.table)} where ${isUndelivered(outbox, cleanup)}
      order by ${seq} limit ${MAX_ORPHANS_PER_SWEEP}), ',')`;
  }
}
