import type { Client } from 'pg';
import type { CaptureScene } from './capture.ts';
import { withClient } from './database.ts';

export interface AdjacentCommits {
  /** `type` of the first and of the second transaction's event. */
  readonly names: readonly [string, string];
  /** End of the first commit record, which is where the second one begins. */
  readonly boundaryLsn: bigint;
  readonly endLsn: bigint;
}

/**
 * Two transactions of one event each whose commit records lie next to each other in the log. Repeated until nothing
 * came between them, neither another session's record nor a page's header; the failed pairs stay in the stream.
 */
export async function commitAdjacently(scene: CaptureScene, slotName: string): Promise<AdjacentCommits> {
  return await withClient(scene.database.url, async (second) => {
    for (let round = 1; round <= 100; round++) {
      const names = [`first-${round}`, `second-${round}`] as const;
      await begin(scene.client, names[0]);
      await begin(second, names[1]);
      await Promise.all([scene.client.query('commit'), second.query('commit')]);
      const commits = await peekCommits(scene, slotName);
      const [one, two] = commits.slice(-2);
      if (one?.name === names[0] && two?.name === names[1] && one.endLsn === two.startLsn)
        return { names, boundaryLsn: one.endLsn, endLsn: two.endLsn };
    }
    throw new Error('no two commits came to lie next to each other');
  });
}

async function begin(client: Client, name: string): Promise<void> {
  await client.query('begin');
  await client.query(`insert into outbox (aggregatetype, aggregateid, type) values ('order', $1, $1)`, [
    name,
  ]);
}

interface Commit {
  readonly name: string;
  readonly startLsn: bigint;
  readonly endLsn: bigint;
}

/** What the slot holds, without taking it. Places of the fields: the protocol's documentation, logical replication messages. */
async function peekCommits(scene: CaptureScene, slotName: string): Promise<Commit[]> {
  const rows = await scene.sql<'hex'>(
    `select encode(data, 'hex') as hex from pg_logical_slot_peek_binary_changes($1, null, null,
            'proto_version', '1', 'publication_names', $2)`,
    [slotName, scene.config.publicationName],
  );
  const commits: Commit[] = [];
  let name = '';
  for (const { hex } of rows) {
    const data = Buffer.from(hex ?? '', 'hex');
    if (data[0] === 0x49) name = /(?:first|second)-\d+/.exec(data.toString('latin1'))?.[0] ?? '';
    if (data[0] === 0x43)
      commits.push({ name, startLsn: data.readBigUInt64BE(2), endLsn: data.readBigUInt64BE(10) });
  }
  return commits;
}
