import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Client } from 'pg';
import { SharedFlush } from '../../../../src/pipeline/settle/shared-flush.ts';

/** A log whose end grows with every look; `flushed` tells how far it is on disk at that look. */
function server(flushed: (look: number) => number): { client: Client; looks: () => number } {
  let looks = 0;
  const query = async (): Promise<{ rows: unknown[] }> => {
    looks++;
    const rows = [
      { inserted: `0/${(100 + looks).toString(16)}`, flushed: `0/${flushed(looks).toString(16)}` },
    ];
    return await Promise.resolve({ rows });
  };
  return { client: { query } as unknown as Client, looks: () => looks };
}

/** Lets writes pass that flush for themselves, until the next may not. */
function untilShared(flush: SharedFlush): number {
  for (let own = 0; own < 1_000; own++) if (flush.next()) return own;
  throw new Error('others are never relied on');
}

describe('a flush left to others', () => {
  it('is tried only after writes that flush for themselves', () => {
    const flush = new SharedFlush();
    assert.ok(untilShared(flush) > 0);
    assert.equal(flush.next(), true, 'and again, as long as it works');
  });

  it('P1 ends when the log is on disk as far as it went at the first look', async () => {
    const flush = new SharedFlush();
    untilShared(flush);
    const { client, looks } = server((look) => (look < 3 ? 100 : 101));
    await flush.wait(client, () => Promise.reject(new Error('not forced')));
    assert.equal(looks(), 3);
    assert.equal(flush.next(), true);
  });

  it('P1 is forced when nobody else commits, and not relied on for a while', async () => {
    const flush = new SharedFlush();
    const own = untilShared(flush);
    let forced = 0;
    const force = async (): Promise<void> => await Promise.resolve(void forced++);
    await flush.wait(server(() => 100).client, force);
    assert.equal(forced, 1);
    assert.equal(untilShared(flush), own);
  });

  it('P1 fails when it can not be known', async () => {
    const flush = new SharedFlush();
    const failing = { query: () => Promise.reject(new Error('gone')) } as unknown as Client;
    await assert.rejects(
      flush.wait(failing, async () => await Promise.resolve()),
      /gone/,
    );
    const noDisk = flush.wait(server(() => 100).client, () => Promise.reject(new Error('no disk')));
    await assert.rejects(noDisk, /no disk/);
  });
});
