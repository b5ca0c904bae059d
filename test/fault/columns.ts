import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { assertDelivered } from '../support/judge.ts';
import type { Proxy } from '../support/proxy.ts';
import type { BrokerName } from '../support/target.ts';
import { FaultTable, POINTS, type FaultTableResult } from './table.ts';

/** Two batches of a relay that was killed, and what its window held, may come again. */
const MAX_DUPLICATES_PER_FAULT = 500;

/** Declares the table's three columns for one broker. `broker` gives the proxy in front of it, and its address there. */
export function describeFaultTable(
  name: BrokerName,
  broker: () => { readonly proxy: Proxy; readonly address: string },
): void {
  const withTable = async (
    run: (table: FaultTable) => Promise<FaultTableResult>,
  ): Promise<FaultTableResult> => {
    const { proxy, address } = broker();
    const table = await FaultTable.open(name, proxy, address);
    try {
      return await run(table);
    } finally {
      await table.close();
    }
  };
  describe(`every fault point, delivering to ${name}`, { concurrency: true }, () => {
    test('P1 P3 SIGKILL at every fault point: nothing lost, order kept', { timeout: 300_000 }, async (t) => {
      const result = await withTable(async (table) => {
        for (const point of POINTS) await table.kill(point);
        return await table.finish();
      });
      assertPromises(result);
      t.diagnostic(`${result.verdict.committed} committed, ${result.verdict.duplicates} duplicates`);
    });

    test(
      'P1 P3 P4 SIGSTOP for 2 s at every fault point: nothing lost, order kept',
      { timeout: 300_000 },
      async (t) => {
        const result = await withTable(async (table) => {
          const drained = { code: 0, signal: null };
          assert.deepEqual(await table.stopAndContinue(), [drained, drained, drained]);
          return await table.finish();
        });
        assertPromises(result);
        // Two seconds are within every deadline: nothing became unknown.
        assert.equal(result.verdict.duplicates, 0, result.output);
        t.diagnostic(`${result.verdict.committed} committed`);
      },
    );
  });

  // After the others: it cuts whatever goes through the broker's proxy, theirs too.
  describe(`every fault point, delivering to ${name}, cut off`, () => {
    test(
      'P1 P3 all connections cut at every fault point: nothing lost, order kept',
      { timeout: 300_000 },
      async (t) => {
        const result = await withTable(async (table) => {
          await table.cutConnections();
          return await table.finish();
        });
        assertPromises(result);
        t.diagnostic(`${result.verdict.committed} committed, ${result.verdict.duplicates} duplicates`);
      },
    );
  });
}

function assertPromises({ verdict, poisoned, parked }: FaultTableResult): void {
  assertDelivered(verdict, { maxDuplicates: POINTS.length * MAX_DUPLICATES_PER_FAULT });
  assert.ok(verdict.committed > 300, `only ${verdict.committed} events`);
  assert.equal(poisoned, 1);
  assert.deepEqual(
    parked.map(({ copies }) => copies),
    [1],
    'the poison event is parked once',
  );
}
