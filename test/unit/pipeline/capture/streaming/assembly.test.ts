import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { RelayError } from '../../../../../src/errors/errors.ts';
import type { OutboxEvent } from '../../../../../src/pipeline/capture/event.ts';
import type { Batch } from '../../../../../src/pipeline/capture/source.ts';
import { TransactionAssembly } from '../../../../../src/pipeline/capture/streaming/assembly.ts';
import { decodePgoutput } from '../../../../../src/pipeline/capture/streaming/decoder.ts';
import { Watermark } from '../../../../../src/pipeline/settle/watermark.ts';
import {
  beginMessage,
  commitMessage,
  insertMessage,
  relationMessage,
  typeMessage,
  type WireRelation,
} from './wire.ts';

const OUTBOX: WireRelation = {
  oid: 1,
  schema: 'public',
  table: 'outbox',
  columns: ['seq', 'xid', 'id', 'payload'].map((name) => ({ name, oid: 25 })),
};
const FOREIGN: WireRelation = { oid: 9, schema: 'public', table: 'other', columns: [{ name: 'x', oid: 25 }] };

interface Published {
  readonly oids?: readonly number[];
  readonly others?: readonly number[];
  readonly alone?: boolean;
  readonly asked?: Map<string, string>;
  readonly addressColumns?: readonly string[];
}

class Server {
  readonly assembly: TransactionAssembly;

  constructor(startLsn = 0n, published: Published = {}) {
    this.assembly = new TransactionAssembly(
      {
        schema: 'public',
        table: 'outbox',
        seqColumn: 'seq',
        xidColumn: 'xid',
        requiredColumns: ['id', 'payload'],
        addressColumns: published.addressColumns ?? [],
        oids: new Set(published.oids ?? [OUTBOX.oid]),
        others: new Set(published.others),
        alone: published.alone ?? true,
        asked: published.asked ?? new Map(),
      },
      startLsn,
    );
  }

  send(...messages: readonly Buffer[]): this {
    for (const message of messages) decodePgoutput(this.assembly, message, 0, message.length);
    return this;
  }

  begin(xid = 7): this {
    return this.send(beginMessage(0n, 1_000, xid));
  }

  insert(seq: number, payload: string | null = '{}', xid = 7): this {
    return this.send(insertMessage(OUTBOX.oid, [String(seq), String(xid), 'id', payload]));
  }

  commit(endLsn: bigint): this {
    return this.send(commitMessage(endLsn - 8n, endLsn, 1_000));
  }

  take(): Batch {
    return this.assembly.take();
  }
}

function seqsOf({ events }: Batch): number[] {
  return events.map(({ seq }) => seq);
}

describe('TransactionAssembly', () => {
  it('P7 a big transaction is handed on while it arrives; its position is known only with its COMMIT', () => {
    const server = new Server().send(relationMessage(OUTBOX));
    const first = server.begin(42).insert(1).insert(2).take();
    const second = server.insert(3).take();
    const [transaction] = first.transactions;
    assert.deepEqual([seqsOf(first), seqsOf(second), second.transactions], [[1, 2], [3], []]);
    assert.deepEqual(transaction, { xid: 42, committedAtMs: 1_000, endLsn: undefined, outstanding: 3 });
    assert.equal(second.events[0]?.transaction, transaction);
    const last = server.commit(500n).take();
    assert.deepEqual([last.events, last.transactions, last.heardLsn], [[], [], 500n]);
    assert.equal(transaction?.endLsn, 500n);
  });

  it('P6 empty transactions and other tables bring a position and nothing else', () => {
    const server = new Server(10n).send(relationMessage(OUTBOX), relationMessage(FOREIGN));
    server.begin().commit(100n);
    server
      .begin()
      .send(insertMessage(FOREIGN.oid, ['y']))
      .commit(200n);
    assert.deepEqual(server.take(), { events: [], transactions: [], heardLsn: 200n });
  });

  it('P1 a keepalive inside a transaction says nothing about it', () => {
    const server = new Server().send(relationMessage(OUTBOX)).begin();
    server.assembly.heard(900n);
    assert.equal(server.take().heardLsn, 0n);
    server.insert(1);
    server.assembly.heard(950n);
    assert.equal(server.take().heardLsn, 0n);
    server.commit(400n);
    server.assembly.heard(300n);
    assert.equal(server.take().heardLsn, 400n);
    server.assembly.heard(1_000n);
    assert.equal(server.take().heardLsn, 1_000n);
  });

  it('P1 a column that the relay needs and that is gone stops it; a row is never guessed', () => {
    const without = { ...OUTBOX, columns: OUTBOX.columns.filter(({ name }) => name !== 'payload') };
    assert.throws(
      () => new Server().send(relationMessage(without)),
      (error) =>
        error instanceof RelayError &&
        error.consequence === 'stop' &&
        /lacks column payload/.test(error.message),
    );
    assert.throws(() => new Server().begin().insert(1), /not announced/);
  });

  it('P1 P2 ours is what goes by the name, what the catalog has as ours, and what nobody else can be', () => {
    const taken = (name: string, published: Published): number[] =>
      seqsOf(
        new Server(0n, published)
          .send(relationMessage({ ...OUTBOX, table: name }))
          .begin()
          .insert(1)
          .take(),
      );
    // The table was renamed since, and another one made in its place.
    assert.deepEqual(taken('outbox', { oids: [77], alone: false }), [1]);
    assert.deepEqual(taken('outbox_2026_01', { oids: [77, OUTBOX.oid], alone: false }), [1]);
    const detached = { oids: [77], alone: true, asked: new Map<string, string>() };
    assert.throws(() => taken('outbox_2026_01', detached), { code: 'relation-unknown' });
    assert.deepEqual(taken('outbox_2026_01', detached), [1], 'no catalog knows it: a partition that is gone');
    const twin = { oids: [77], others: [OUTBOX.oid], alone: false };
    assert.deepEqual(taken('twin', twin), [], 'the outbox of somebody else');
  });

  it('P1 P2 what no catalog has told of yet is looked up once, by a new session', () => {
    const asked = new Map<string, string>();
    const open = (oids: readonly number[]): Server => new Server(0n, { oids, alone: false, asked });
    const announced = relationMessage({ ...OUTBOX, table: 'outbox_2026_02' });
    assert.throws(() => open([77]).send(announced), { code: 'relation-unknown', consequence: 'retry' });
    assert.deepEqual(seqsOf(open([77, OUTBOX.oid]).send(announced).begin().insert(1).take()), [1]);
    assert.throws(() => open([77]).send(announced), { code: 'relation-unknown' }, 'it was ours, and is gone');
    assert.deepEqual(seqsOf(open([77]).send(announced).begin().insert(1).take()), [], 'it is gone');
  });

  it('P1 P10 one that no catalog knows and that lacks a column of the address: a session for each question, then it goes on', () => {
    const asked = new Map<string, string>();
    const given = { oids: [77], alone: true, asked, addressColumns: ['tenant'] };
    const announced = relationMessage({ ...OUTBOX, table: 'outbox_2026_01' });
    const open = (): Server => new Server(0n, given).send(announced);
    assert.throws(open, { code: 'relation-unknown' });
    assert.throws(open, { code: 'column-missing' });
    assert.deepEqual(seqsOf(open().send(announced).begin().insert(1).take()), [1]);
  });

  it('P1 P10 a column of the address that is not there: once to a new session, which knows whether it ever comes', () => {
    const asked = new Map<string, string>();
    const open = (): Server => new Server(0n, { addressColumns: ['tenant'], asked });
    const announced = relationMessage(OUTBOX);
    assert.throws(() => open().send(announced), { code: 'column-missing', consequence: 'retry' });
    const rows = open().send(announced).begin().insert(1).take();
    assert.deepEqual(
      seqsOf(rows),
      [1],
      'written before the column was added: it is for the router to park them',
    );
    const columns = [...OUTBOX.columns, { name: 'tenant', oid: 25 }];
    open().send(relationMessage({ ...OUTBOX, columns }));
    assert.throws(() => open().send(announced), { consequence: 'retry' }, 'and gone again');
  });

  it('P2 a table that is published no more, or was dropped, is passed over and stops nothing', () => {
    for (const alone of [true, false]) {
      const server = new Server(0n, { alone }).send(relationMessage({ ...FOREIGN, table: 'stage' }));
      server
        .begin()
        .send(insertMessage(FOREIGN.oid, ['y']))
        .commit(20n);
      assert.deepEqual(server.take(), { events: [], transactions: [], heardLsn: 20n });
    }
  });

  it('P2 columns added or moved in the middle of the stream: each row has the shape of its time', () => {
    const server = new Server().send(relationMessage(OUTBOX)).begin().insert(1, 'old').commit(10n);
    const moved = {
      ...OUTBOX,
      columns: ['payload', 'new', 'id', 'xid', 'seq'].map((name) => ({ name, oid: 25 })),
    };
    server.send(relationMessage(moved)).begin();
    server.send(insertMessage(OUTBOX.oid, ['new', 'added', 'id', '7', '2'])).commit(20n);
    const rows = server
      .take()
      .events.map(({ row }) => ['seq', 'payload', 'new'].map((column) => row.text(column)));
    assert.deepEqual(rows, [
      ['1', 'old', undefined],
      ['2', 'new', 'added'],
    ]);
  });

  it('P2 a column of a domain is taken for the type below it', () => {
    const columns = OUTBOX.columns.map((column, i) => ({ ...column, oid: i < 3 ? 25 : 70_000 }));
    const oidOf = (...types: readonly Buffer[]): number | undefined => {
      const server = new Server().send(...types, relationMessage({ ...OUTBOX, columns }));
      return server.begin().insert(1).take().events[0]?.row.typeOid('payload');
    };
    assert.equal(oidOf(typeMessage(70_000, '', 'bytea')), 17);
    assert.equal(oidOf(typeMessage(70_000, 'public', 'bytea')), 70_000, 'somebody else’s type of that name');
    assert.equal(oidOf(typeMessage(70_000, '', 'bytea'), typeMessage(70_000, '', 'jsonb')), 3802);
  });

  it('P10 an identity that is no number of 53 bits is told, not rounded', () => {
    for (const bad of ['9007199254740992', '-1', '1.5', 'x', '', null]) {
      const server = new Server().send(relationMessage(OUTBOX)).begin();
      assert.throws(
        () => server.send(insertMessage(OUTBOX.oid, [bad, '7', 'id', ''])),
        RelayError,
        String(bad),
      );
    }
    const server = new Server()
      .send(relationMessage(OUTBOX))
      .begin()
      .insert(2 ** 53 - 1);
    assert.deepEqual(seqsOf(server.take()), [2 ** 53 - 1]);
  });

  it('P1 P3 however reads cut the stream: all events, in order, and no position before its events are settled', () => {
    const step = fc.record({
      events: fc.nat(4),
      foreign: fc.boolean(),
      heard: fc.boolean(),
      take: fc.nat(3),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40, size: 'max' }), (transactions) => {
        const server = new Server().send(relationMessage(OUTBOX), relationMessage(FOREIGN));
        const watermark = new Watermark(0n);
        const received: number[] = [];
        const commitOf = new Map<number, bigint>();
        const unsettled: OutboxEvent[] = [];
        const accept = (): void => {
          const batch = server.take();
          for (const transaction of batch.transactions) watermark.begin(transaction);
          watermark.heard(batch.heardLsn);
          unsettled.push(...batch.events);
          received.push(...seqsOf(batch));
          // Half of it is settled, the newest first: positions must wait for the oldest.
          for (const event of unsettled.splice(unsettled.length / 2)) watermark.settle(event);
          const position = watermark.advance();
          for (const { seq } of unsettled)
            assert.ok(position < (commitOf.get(seq) ?? 0n), `position beyond event ${seq}`);
        };
        let seq = 0;
        let lsn = 0n;
        for (const { events, foreign, heard, take } of transactions) {
          server.begin();
          for (let i = 0; i < events; i++) {
            server.insert(++seq);
            commitOf.set(seq, lsn + 10n);
            if (heard) server.assembly.heard(lsn + 1_000_000n);
            if (take === i) accept();
          }
          if (foreign) server.send(insertMessage(FOREIGN.oid, ['y']));
          assert.ok(watermark.advance() <= lsn);
          server.commit((lsn += 10n));
          if (take === 0) accept();
        }
        accept();
        for (const event of unsettled) watermark.settle(event);
        assert.deepEqual(
          received,
          Array.from({ length: seq }, (_, i) => i + 1),
        );
        assert.equal(watermark.advance(), lsn);
      }),
    );
  });
});
