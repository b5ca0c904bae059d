import type { Client } from 'pg';
import type { Config } from '../../config/config.ts';
import { RelayError } from '../../errors/errors.ts';
import { parseLsn } from '../../postgres/lsn.ts';
import { publicationCovers } from '../../postgres/publication.ts';
import { TablePass } from '../capture/polling/table-pass.ts';
import type { OutboxEvent } from '../capture/event.ts';
import type { Settlement } from './settlement.ts';

const MAX_ORPHANS_PER_SWEEP = 1_000;
/** Orphans pass the in-flight window by: this bounds their memory. */
const MAX_BYTES_PER_SWEEP = 16 * 1_048_576;

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
 * A snapshot is taken, and after it the end of the log is read: every row that the snapshot sees was committed before
 * that position. Once the stream has settled all up to there, a row that is still undelivered can't come any more.
 */
export class OrphanSweep {
  private readonly options: OrphanSweepOptions;
  private readonly settlement: Settlement;
  private candidate: { snapshot: string; insertLsn: bigint } | undefined;
  private delivering: readonly OutboxEvent[] = [];

  constructor(options: OrphanSweepOptions) {
    this.options = options;
    this.settlement = options.settlement;
  }

  /** One step; call it from a timer. Returns the orphans that are to be delivered, which are few or none. */
  async step(client: Client, signal: AbortSignal): Promise<readonly OutboxEvent[]> {
    if (this.settlement.hasUnseen) return [];
    if (this.delivering.some(({ transaction }) => transaction.outstanding > 0)) return [];
    this.candidate ??= await takeCandidate(client);
    if (!this.settlement.hasRemovedUpTo(this.candidate.insertLsn)) return [];
    const { snapshot } = this.candidate;
    this.candidate = undefined;
    // Delivered rows stay in the table without a mark: nothing tells an orphan from them. But now all is delivered that
    // the snapshot sees, so that a later hand-over need not deliver it again.
    if (this.options.config.cleanup === 'none') await this.options.moveHorizon(snapshot);
    else this.delivering = await this.find(client, snapshot, signal);
    return this.delivering;
  }

  private async find(client: Client, snapshot: string, signal: AbortSignal): Promise<OutboxEvent[]> {
    const pass = new TablePass({
      config: this.options.config,
      client,
      snapshot,
      horizon: undefined,
      afterSeq: 0,
      limitRows: MAX_ORPHANS_PER_SWEEP,
    });
    const found: OutboxEvent[] = [];
    let bytes = 0;
    for await (const batch of pass.batches(signal)) {
      found.push(...batch.events);
      bytes += batch.events.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      if (found.length >= MAX_ORPHANS_PER_SWEEP || bytes >= MAX_BYTES_PER_SWEEP) break;
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
}

/** In one statement: it is evaluated after its snapshot was taken. The write position would be too early. */
async function takeCandidate(client: Client): Promise<{ snapshot: string; insertLsn: bigint }> {
  const { rows } = await client.query<{ snapshot: string; lsn: string }>(
    'select pg_current_snapshot()::text as snapshot, pg_current_wal_insert_lsn()::text as lsn',
  );
  const row = rows[0] as { snapshot: string; lsn: string };
  return { snapshot: row.snapshot, insertLsn: parseLsn(row.lsn) };
}
